package authorities

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/careen-project/careen/rootfs/file"
)

const (
	// maxFile limits one file in bytes, maxFiles the number of files read of a directory.
	maxFile  = 1 << 20
	maxFiles = 256
)

// Source is a place of certificates.
type Source struct {
	// Path is a file, or a directory with *.crt and *.pem files. It is "" with Data.
	Path string
	// Data are the certificates themselves, PEM or DER.
	Data []byte
	// From is the place of the setting that names the source, as in "/etc/careen/careen.toml:5".
	From string

	err error // why there is no Data
}

// Name returns the path, or From for a certificate that is in the setting itself.
func (s Source) Name() string {
	if s.Path == "" {
		return s.From
	}
	return s.Path
}

// Finding is the result of reading a source.
type Finding struct {
	Source
	// Certs is the number of certificates read.
	Certs int
	// Err is the first problem, nil if there is none.
	Err error
}

// String returns the finding for a message: "2 certificates in /etc/ca.pem (kernel command line)".
func (f Finding) String() string { return f.text(" (" + f.From + ")") }

// Held returns String without From.
func (f Finding) Held() string { return f.text("") }

func (f Finding) text(from string) string {
	name := f.Path
	if name == "" {
		name = "careen.ca="
	}
	text := fmt.Sprintf("%d certificates in %s%s", f.Certs, name, from)
	if f.Certs == 1 {
		text = fmt.Sprintf("1 certificate in %s%s", name, from)
	}
	if f.Err != nil {
		text += ": " + strings.Join(strings.Fields(f.Err.Error()), " ")
	}
	return text
}

// Bundle is the certificates of all sources. It does not change.
type Bundle struct {
	// Certs are the authorities.
	Certs []*x509.Certificate
	// Findings has one entry for each source, in order.
	Findings []Finding

	once sync.Once
	pool *x509.CertPool
}

// Pool returns the system's authorities and the bundle's, for RootCAs of
// [crypto/tls.Config]; nil for an empty bundle. Callers share it and must not change it.
func (b *Bundle) Pool() *x509.CertPool {
	b.once.Do(func() {
		if len(b.Certs) == 0 {
			return
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, c := range b.Certs {
			pool.AddCert(c)
		}
		b.pool = pool
	})
	return b.pool
}

// String lists the findings; "" without any.
func (b *Bundle) String() string {
	words := make([]string, len(b.Findings))
	for i, f := range b.Findings {
		words[i] = f.String()
	}
	return strings.Join(words, ", ")
}

// Faulty returns the findings with an error.
func (b *Bundle) Faulty() []Finding {
	var faulty []Finding
	for _, f := range b.Findings {
		if f.Err != nil {
			faulty = append(faulty, f)
		}
	}
	return faulty
}

// Store reads the sources and reads them again after they changed. Its methods may be
// called concurrently.
type Store struct {
	sources func() []Source
	changed func(*Bundle)

	mu     sync.Mutex
	stamp  string
	bundle *Bundle
	dirs   map[string]listing
}

// listing is a cached directory.
type listing struct {
	stamp string
	files []string
	err   error
}

// New returns a store. Each call of [Store.Bundle] calls sources. changed, if not nil, is
// called with each new bundle.
func New(sources func() []Source, changed func(*Bundle)) *Store {
	return &Store{sources: sources, changed: changed, dirs: map[string]listing{}}
}

// Bundle returns the current certificates. It returns the same pointer while nothing
// changes.
func (s *Store) Bundle() *Bundle {
	s.mu.Lock()
	defer s.mu.Unlock()
	sources := s.sources()
	var stamp strings.Builder
	for _, source := range sources {
		fmt.Fprintf(&stamp, "%s\x00%s\x00", source.From, source.Path)
		stamp.Write(source.Data)
		for _, path := range s.files(source) {
			stamp.WriteString(path + "\x00" + stampOf(path))
		}
	}
	if s.bundle != nil && stamp.String() == s.stamp {
		return s.bundle
	}
	b := &Bundle{}
	for _, source := range sources {
		certs, err := s.read(source)
		b.Certs = append(b.Certs, certs...)
		b.Findings = append(b.Findings, Finding{Source: source, Certs: len(certs), Err: err})
	}
	s.stamp, s.bundle = stamp.String(), b
	if s.changed != nil {
		s.changed(b)
	}
	return b
}

// files returns the files of a source: those in a directory, or the one file.
func (s *Store) files(source Source) []string {
	if source.Path == "" {
		return nil
	}
	info, err := os.Stat(source.Path)
	if err != nil || !info.IsDir() {
		delete(s.dirs, source.Path)
		return []string{source.Path}
	}
	now := stampFrom(info)
	known, ok := s.dirs[source.Path]
	if !ok || known.stamp != now {
		known = listing{stamp: now}
		known.files, known.err = list(source.Path)
		s.dirs[source.Path] = known
	}
	return known.files
}

// list returns the certificate files of a directory, sorted by name.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var files []string
	for _, entry := range entries {
		switch filepath.Ext(entry.Name()) {
		case ".crt", ".pem":
			if len(files) == maxFiles {
				return files, fmt.Errorf("more than %d files; only the first are read", maxFiles)
			}
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	if err == nil && len(files) == 0 {
		err = errors.New("no *.crt and no *.pem in it")
	}
	return files, err
}

// stampOf returns a text that changes when the file changes.
func stampOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	return stampFrom(info)
}

func stampFrom(info fs.FileInfo) string {
	var inode uint64
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Sprint(info.ModTime().UnixNano(), " ", info.Size(), " ", inode, " ", info.Mode())
}

// read returns the certificates of a source and the first problem.
func (s *Store) read(source Source) ([]*x509.Certificate, error) {
	if source.Path == "" {
		if source.err != nil {
			return nil, source.err
		}
		return Parse(source.Data)
	}
	dir, isDir := s.dirs[source.Path]
	if !isDir {
		return readFile(source.Path)
	}
	certs, err := []*x509.Certificate(nil), dir.err
	for _, path := range dir.files {
		more, ferr := readFile(path)
		certs = append(certs, more...)
		if ferr != nil && err == nil {
			err = fmt.Errorf("%s: %w", filepath.Base(path), ferr)
		}
	}
	return certs, err
}

func readFile(path string) ([]*x509.Certificate, error) {
	data, err := file.ReadLimited(path, maxFile)
	if err != nil {
		return nil, bare(err)
	}
	return Parse(data)
}

// bare removes the path from an error: the finding has it already.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
