package image

import (
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Config says how a [Puller] reaches registries and where images go. The zero
// value of every field has a default that suits a node in a ramdisk.
type Config struct {
	// Namespace is containerd's namespace; "careen" if empty.
	Namespace string
	// Snapshotter is the name of containerd's snapshotter; "overlayfs" if empty.
	Snapshotter string
	// StoreDir is a directory on the file system that holds snapshots. Its free
	// space limits the images that are accepted. If StoreDir is empty, the free space is
	// known only when layers are unpacked directly.
	StoreDir string
	// DirectApply says that this process can use the snapshotter's directories under the
	// names that containerd gives them, as with an embedded containerd. If it is false,
	// the first pull finds out. If the directories are not usable, or the snapshotter is
	// not overlayfs, containerd's content store and diff service unpack the layers, one
	// after another.
	DirectApply bool
	// Indirect makes containerd unpack the layers in any case.
	Indirect bool
	// Limits bound the sizes, counts and times of a pull.
	Limits Limits

	// HostsDirs are directories with one subdirectory per registry that may hold
	// containerd's hosts.toml; the default is /etc/containerd/certs.d.
	HostsDirs []string
	// CertDirs are directories with one subdirectory per registry holding *.crt,
	// *.cert and *.key; the default is podman's /etc/containers/certs.d, then
	// Docker's /etc/docker/certs.d. The first that has the registry is used.
	CertDirs []string
	// RegistriesConf is podman's registries.conf: mirrors, blocked and insecure
	// registries, search order and aliases of short names. The default is the
	// node's own, found as podman finds it.
	RegistriesConf string
	// RegistriesConfDir holds its drop-ins; "" is the node's own.
	RegistriesConfDir string
	// AuthFiles are tried in order after the request's own; the default is
	// $REGISTRY_AUTH_FILE, podman's auth.json in its places, then Docker's
	// config.json.
	AuthFiles []string
	// Proxy chooses the proxy of a request; the default reads HTTP_PROXY,
	// HTTPS_PROXY and NO_PROXY, in either case, once, when [New] is called.
	Proxy func(*url.URL) (*url.URL, error)
	// UserAgent is sent to registries.
	UserAgent string
	// MemAvailable returns the node's available memory in bytes; the default
	// reads MemAvailable of /proc/meminfo. Zero means unknown.
	MemAvailable func() int64
	// Authorities returns the authorities that are trusted beside the system's. It is called
	// before each use of a registry; nil means none.
	Authorities func() Authorities
	// Clock sets a clock that is behind; nil does not set it.
	Clock *Clock
	// NetworkWait is the longest time that a pull waits in total for a node without a route
	// to the registry or without a name server; see package netready. 0 does not wait.
	NetworkWait time.Duration
	// Now is the clock for the validity of certificates; time.Now if nil.
	Now func() time.Time

	// Jitter is the longest time that a pull waits, at random, before it fetches layers
	// from a registry; 0 is none.
	Jitter time.Duration
}

// Limits bound a pull. A zero field has the default that is named with it.
type Limits struct {
	// Stall is the longest time without a byte on a connection. Then it is dropped and the
	// download resumed; 30 s.
	Stall time.Duration
	// Total bounds one pull; 2 h.
	Total time.Duration
	// Connect bounds dialling and the TLS handshake, each; 15 s.
	Connect time.Duration
	// Retries is the number of retries of a failed request or a cut download without
	// progress in between; 3. A request may set its own.
	Retries int
	// Backoff is the wait before the first retry, doubled each time with jitter;
	// 1 s. MaxBackoff caps it, and what Retry-After may ask for; 60 s.
	Backoff, MaxBackoff time.Duration

	// MaxManifest bounds a manifest or index in bytes; 4 MiB.
	MaxManifest int64
	// MaxConfig bounds an image's configuration in bytes; 8 MiB.
	MaxConfig int64
	// MaxLayers bounds the number of layers; 256.
	MaxLayers int
	// MaxUnpacked bounds the unpacked bytes of one image; 256 GiB. The free space
	// of the store bounds it further.
	MaxUnpacked int64
	// MaxEntries bounds the files, directories and links of one image; 4 million.
	MaxEntries int64
	// Reserve is the number of bytes that stay free in the store and in memory; 32 MiB.
	Reserve int64
	// Parallel is the number of layers of one pull that are unpacked at once;
	// the number of processors plus one, at least 3. 0 is the default.
	Parallel int
}

func (c Config) withDefaults() Config {
	setDefault(&c.Namespace, "careen")
	setDefault(&c.Snapshotter, "overlayfs")
	setDefault(&c.UserAgent, "careen")
	if c.HostsDirs == nil {
		c.HostsDirs = []string{"/etc/containerd/certs.d"}
	}
	if c.CertDirs == nil {
		c.CertDirs = []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	}
	if c.AuthFiles == nil {
		c.AuthFiles = defaultAuthFiles(os.Getenv, os.Getuid())
	}
	if c.Proxy == nil {
		c.Proxy = httpproxy.FromEnvironment().ProxyFunc()
	}
	if c.MemAvailable == nil {
		c.MemAvailable = memAvailable
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Limits = c.Limits.withDefaults()
	return c
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.Stall, 30*time.Second)
	setDefault(&l.Total, 2*time.Hour)
	setDefault(&l.Connect, 15*time.Second)
	setDefault(&l.Retries, 3)
	setDefault(&l.Backoff, time.Second)
	setDefault(&l.MaxBackoff, time.Minute)
	setDefault(&l.MaxManifest, 4<<20)
	setDefault(&l.MaxConfig, 8<<20)
	setDefault(&l.MaxLayers, 256)
	setDefault(&l.MaxUnpacked, 256<<30)
	setDefault(&l.MaxEntries, 4_000_000)
	setDefault(&l.Reserve, 32<<20)
	setDefault(&l.Parallel, max(3, runtime.NumCPU()+1))
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// defaultAuthFiles lists the files with credentials, podman's before Docker's, in the order
// of containers-auth.json(5).
func defaultAuthFiles(getenv func(string) string, uid int) []string {
	var files []string
	if file := getenv("REGISTRY_AUTH_FILE"); file != "" {
		files = append(files, file)
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers/auth.json"))
	}
	home := getenv("HOME")
	if uid == 0 {
		files = append(files, "/run/containers/0/auth.json")
		// An init system may start the agent with no HOME at all.
		setDefault(&home, "/root")
	}
	config := getenv("XDG_CONFIG_HOME")
	setDefault(&config, filepath.Join(home, ".config"))
	files = append(files, filepath.Join(config, "containers/auth.json"))
	docker := getenv("DOCKER_CONFIG")
	setDefault(&docker, filepath.Join(home, ".docker"))
	return append(files, filepath.Join(docker, "config.json"), filepath.Join(home, ".dockercfg"))
}
