package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// Policies of a pull.
const (
	PullAlways  = "always"
	PullMissing = "missing"
	PullNever   = "never"
	PullNewer   = "newer"
)

// Platform is the platform that the operator asks for; empty parts are the node's.
type Platform struct {
	OS, Arch, Variant string
}

// Pull is one valid `pull` command.
type Pull struct {
	// Help is set by --help; nothing else is checked then.
	Help  bool
	Image Reference
	// Policy is always, missing, never or newer.
	Policy   string
	Platform Platform
	// Creds is "user" or "user:password"; AuthFile and CertDir are absolute paths.
	Creds, AuthFile, CertDir string
	// TLSVerify is nil when the configuration decides.
	TLSVerify *bool
	// Retry is the number of retries, -1 if not given. RetryDelay is 0 if the delay
	// grows.
	Retry      int
	RetryDelay time.Duration
	// Quiet prints only the image id.
	Quiet bool

	scanned *scanned
}

// ParsePull reads `[options] IMAGE` as podman pull does. Errors are those of [ParseRun].
func ParsePull(words []string, caller Caller) (*Pull, error) {
	s := scan(OnPull, words)
	if s.bool("help", false) {
		return &Pull{Help: true}, nil
	}
	image := ""
	switch {
	case len(s.rest) == 1:
		image = s.rest[0]
	case len(s.rest) > 1 && len(s.errs) == 0:
		s.fail(&fault.Error{
			Code: fault.BadRequest, Op: "pull", Subject: quote(s.rest[1]), Reason: "one image is pulled at a time",
			Remedy: "Put options before the image, and pull other images with further commands",
		})
	case len(s.errs) == 0:
		s.fail(&fault.Error{
			Code: fault.BadRequest, Op: "pull", Reason: "the image is missing after the options",
			Remedy: "Write it like careen pull docker://registry.example/tool:1",
		})
	}
	return finishPull(s, image, caller)
}

// ParsePullOptions reads options alone, such as Ironic's pull_options, for a separate
// image. It refuses words that are not options. Errors are those of [ParseRun].
func ParsePullOptions(words []string, image string, caller Caller) (*Pull, error) {
	s := scan(OnPull, words)
	refuseRest(s)
	return finishPull(s, image, caller)
}

func finishPull(s *scanned, image string, caller Caller) (*Pull, error) {
	// The options of a pull are a subset of those of a run.
	run := &Run{scanned: s, caller: caller}
	if image != "" || len(s.errs) == 0 {
		run.setImage(s, image)
	}
	p := runParser{scanned: s, caller: caller, o: &run.Options}
	p.pull()
	if err := s.errs.err(); err != nil {
		return nil, err
	}
	pull := run.Options.pull
	pull.Image, pull.scanned = run.Image, s
	return &pull, nil
}

// Pull returns the pull that `run` does by itself before it starts the container.
func (r *Run) Pull() *Pull {
	pull := r.Options.pull
	pull.Image, pull.scanned = r.Image, r.scanned
	return &pull
}

// Words returns the options as --name=value with nothing masked, to pass a command on.
// Never log it.
func (p *Pull) Words() []string { return p.scanned.words() }

// pull reads the options that run and pull share.
func (p *runParser) pull() {
	o := &p.o.pull
	o.Quiet = p.bool("quiet", false)
	if p.command == OnPull {
		o.Policy = p.policy("policy", PullAlways)
	} else {
		o.Policy = p.policy("pull", PullMissing)
	}
	o.Platform = p.platform()
	o.Creds = p.text("creds", "")
	if user, _, ok := strings.Cut(o.Creds, ":"); o.Creds != "" && (!ok || user == "") {
		p.bad("creds", "it is not USER:PASSWORD, and careen cannot ask for the missing part")
	}
	if o.AuthFile = p.text("authfile", p.caller.Environ["REGISTRY_AUTH_FILE"]); o.AuthFile != "" {
		o.AuthFile = p.path(o.AuthFile)
		p.mustExist("authfile", o.AuthFile)
		p.checkAuthFile(o.AuthFile)
	}
	if o.CertDir = p.text("cert-dir", ""); o.CertDir != "" {
		o.CertDir = p.path(o.CertDir)
		if p.absent(o.CertDir) {
			o.CertDir = "" // podman treats an absent directory as an empty one
		}
	}
	if p.changed("tls-verify") {
		verify := p.bool("tls-verify", true)
		o.TLSVerify = &verify
	}
	o.Retry = -1
	if p.changed("retry") {
		o.Retry = int(min(p.uint("retry", 0), math.MaxInt32))
	}
	if text := p.text("retry-delay", ""); text != "" {
		delay, err := parseDelay(text)
		if err != nil {
			p.bad("retry-delay", err.Error())
		}
		o.RetryDelay = delay
	}
}

func (p *runParser) mustExist(name, path string) {
	if p.caller.Host == nil {
		return
	}
	if _, err := p.caller.Host.Stat(path); err != nil {
		e := badOption(p.written(name), err.Error(), "")
		e.Err, e.Remedy = err, "Use a path that exists on the node"
		p.fail(e)
	}
}

func (p *runParser) absent(path string) bool {
	if p.caller.Host == nil {
		return false
	}
	_, err := p.caller.Host.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// checkAuthFile refuses for a pull a file without credentials. A run accepts it, because
// the image may be present.
func (p *runParser) checkAuthFile(path string) {
	if p.caller.Host == nil || p.command != OnPull || !p.changed("authfile") {
		return
	}
	content, err := p.caller.Host.ReadFile(path, maxFile)
	var auths struct {
		Auths map[string]any `json:"auths"`
	}
	switch {
	case errors.Is(err, fs.ErrNotExist): // already reported
	case err != nil:
		p.bad("authfile", err.Error())
	case len(content) > 0 && json.Unmarshal(content, &auths) != nil:
		p.bad("authfile", "the file is not JSON as podman login writes it")
	}
}

// policy reads podman's spellings of a pull policy.
func (p *runParser) policy(name, def string) string {
	text := p.text(name, def)
	lowerFirst := text
	if text != "" {
		lowerFirst = strings.ToLower(text[:1]) + text[1:]
	}
	switch lowerFirst {
	case "always", "never", "newer", "missing":
		return lowerFirst
	case "", "ifnotpresent", "ifNotPresent":
		return PullMissing
	case "ifnewer", "ifNewer":
		return PullNewer
	case "true", "false":
		// podman before version 4 and buildah take a boolean.
		p.bad(name, "it is not a boolean: use always for true, missing for false")
	default:
		p.bad(name, quote(text)+" is not one of always, missing, never and newer")
	}
	return def
}

// platformPattern is what each part of a platform is made of.
var platformPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
})

// platform reads --platform, or --os, --arch and --variant.
func (p *runParser) platform() Platform {
	platform := Platform{OS: p.text("os", ""), Arch: p.text("arch", ""), Variant: p.text("variant", "")}
	text := p.text("platform", "")
	if text == "" {
		return platform
	}
	if platform.OS != "" || platform.Arch != "" {
		p.bad("platform", "it cannot be given together with --os or --arch")
		return platform
	}
	parts := strings.Split(text, "/")
	for i, part := range parts {
		// One of two may be left out; it is the node's then.
		leftOut := part == "" && len(parts) == 2 && parts[1-i] != ""
		if len(parts) > 3 || !leftOut && !platformPattern().MatchString(part) {
			p.bad("platform", "it is not OS/ARCH or OS/ARCH/VARIANT")
			return platform
		}
	}
	platform.OS = parts[0]
	if len(parts) > 1 {
		platform.Arch = parts[1]
	}
	if len(parts) > 2 {
		platform.Variant = parts[2]
	}
	return platform
}

// parseDelay reads a duration, or a plain number of seconds.
func parseDelay(text string) (time.Duration, error) {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%s is not a duration such as 5s", quote(text))
	}
	return d, nil
}
