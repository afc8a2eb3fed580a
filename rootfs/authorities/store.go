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
	// maxFile bounds one file, and maxFiles the files that are read of a directory.
	maxFile  = 1 << 20
	maxFiles = 256
)

// Source names certificates.
type Source struct {
	// Path is a file, or a directory whose *.crt and *.pem are read; "" with Data.
	Path string
	// Data are certificates themselves.
	Data []byte
	// From is where the source is named, as in "/etc/careen/careen.toml:5".
	From string

	err error // why there is no Data
}

// Name is the path, or where the certificate itself stands.
func (s Source) Name() string {
	if s.Path == "" {
		return s.From
	}
	return s.Path
}

// Finding is what a source turned out to hold.
type Finding struct {
	Source
	// Certs is how many certificates were taken from it.
	Certs int
	// Err is why there are no more, nil if all is well.
	Err error
}

// String is a part of a sentence: "2 certificates in /etc/ca.pem (kernel command line)".
func (f Finding) String() string { return f.text(" (" + f.From + ")") }

// Held is String without where the source is named.
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

// Bundle is what all sources hold. It is not changed once it was returned.
type Bundle struct {
	// Certs are the authorities.
	Certs []*x509.Certificate
	// Findings has one entry for each source, in order.
	Findings []Finding

	once sync.Once
	pool *x509.CertPool
}

// Pool returns the system's authorities with these added, nil if there are none to add:
// what [crypto/tls.Config] takes for its RootCAs. It is shared, so it must not be changed.
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

// String lists the sources, "" if there are none.
func (b *Bundle) String() string {
	words := make([]string, len(b.Findings))
	for i, f := range b.Findings {
		words[i] = f.String()
	}
	return strings.Join(words, ", ")
}

// Faulty returns the findings that are not as they should be.
func (b *Bundle) Faulty() []Finding {
	var faulty []Finding
	for _, f := range b.Findings {
		if f.Err != nil {
			faulty = append(faulty, f)
		}
	}
	return faulty
}

// Store reads sources when they are asked for, and again when they have changed. Its
// methods may be called at once.
type Store struct {
	sources func() []Source
	changed func(*Bundle)

	mu     sync.Mutex
	stamp  string
	bundle *Bundle
	dirs   map[string]listing
}

// listing is a directory's files, as long as it does not change.
type listing struct {
	stamp string
	files []string
	err   error
}

// New returns a store of what sources returns, which is called whenever the store is
// asked. changed, if not nil, hears of each bundle that is read anew.
func New(sources func() []Source, changed func(*Bundle)) *Store {
	return &Store{sources: sources, changed: changed, dirs: map[string]listing{}}
}

// Bundle returns the certificates as they are now. It is the same pointer as long as
// nothing has changed.
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

// files are those of a source, of which there is one if it is none itself.
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

// list returns the certificates' files of a directory by name.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var files []string
	for _, entry := range entries {
		switch filepath.Ext(entry.Name()) {
		case ".crt", ".pem":
			if len(files) == maxFiles {
				return files, fmt.Errorf("it has more than %d files, of which the first are read", maxFiles)
			}
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	if err == nil && len(files) == 0 {
		err = errors.New("no *.crt and no *.pem in it")
	}
	return files, err
}

// stampOf changes whenever a file does.
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

// read returns the certificates of a source, and what is wrong with it.
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

// bare takes the path off an error that is told with it.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
