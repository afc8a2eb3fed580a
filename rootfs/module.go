package rootfs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
)

// maxModule limits a module's size, unpacked, and that of modules.dep.
const maxModule = 128 << 20

// LoadModule loads a kernel module and its dependencies, as modprobe does without a
// configuration. depmod's modules.dep names the files, which may be compressed with gzip,
// xz or zstd. A module that is loaded or built in is no error. dir holds one directory
// for each kernel release; "" stands for /lib/modules and /usr/lib/modules. Each loaded
// module is appended to done, which may be nil. Errors have the code [fault.Node].
func LoadModule(name, dir string, done *[]Action) error {
	var list actions
	err := loadModule(name, dir, &list)
	if done != nil {
		*done = append(*done, list...)
	}
	if err != nil {
		return &fault.Error{
			Code: fault.Node, Op: "load the kernel module", Subject: name, Err: err,
			Remedy: "Add the module's file and modules.dep to the ramdisk, or use a kernel that has it built in",
		}
	}
	return nil
}

func loadModule(name, dir string, done *actions) error {
	base, err := ModulesDir(dir)
	if err != nil {
		return done.add("load", name, "kernel module", err)
	}
	if builtIn(base, name) {
		return nil
	}
	files, err := moduleFiles(base, name)
	if err != nil {
		return done.add("load", name, "kernel module", err)
	}
	for _, file := range files {
		module := moduleName(file)
		if _, err := os.Stat(filepath.Join("/sys/module", module, "initstate")); err == nil {
			continue
		}
		err := insertModule(file)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if done.add("load", module, file, err) != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// ModulesDir returns the directory with the modules of the running kernel. dir holds one
// directory for each kernel release; "" stands for /lib/modules and /usr/lib/modules.
// Without one the error is fs.ErrNotExist; it has no fault code.
func ModulesDir(dir string) (string, error) {
	dirs := []string{dir}
	if dir == "" {
		dirs = []string{"/lib/modules", "/usr/lib/modules"}
	}
	release := KernelRelease()
	for _, d := range dirs {
		path := filepath.Join(d, release)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s in %s: %w", release, strings.Join(dirs, " or "), fs.ErrNotExist)
}

// ModulePresent reports whether a module is loaded or built in. dir is as in [LoadModule].
func ModulePresent(name, dir string) bool {
	if _, err := os.Stat("/sys/module/" + moduleName(name)); err == nil {
		return true
	}
	base, err := ModulesDir(dir)
	return err == nil && builtIn(base, name)
}

// ModuleLoadable reports why a module has no file that [LoadModule] could load, nil if
// it has one. The error has no fault code.
func ModuleLoadable(name, dir string) error {
	base, err := ModulesDir(dir)
	if err == nil {
		_, err = moduleFiles(base, name)
	}
	return err
}

// KernelRelease returns the release of the running kernel, as uname -r prints it.
func KernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// moduleName returns the kernel's name of a module file: no directory, no suffix, and
// underscores where the file name may have dashes.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

func builtIn(base, name string) bool {
	data, err := file.ReadLimited(filepath.Join(base, "modules.builtin"), 4<<20)
	if err != nil {
		return false
	}
	for _, line := range strings.Fields(string(data)) {
		if moduleName(line) == moduleName(name) {
			return true
		}
	}
	return false
}

// moduleFiles returns the files to load for name, in order. Without modules.dep it searches
// for the file itself, which is enough for a module without dependencies.
func moduleFiles(base, name string) ([]string, error) {
	data, err := file.ReadLimited(filepath.Join(base, "modules.dep"), 16<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return findModule(base, name)
	}
	if err != nil {
		return nil, err
	}
	files := parseModulesDep(data, name)
	if len(files) == 0 {
		return nil, fmt.Errorf("not in %s: %w", filepath.Join(base, "modules.dep"), fs.ErrNotExist)
	}
	for i, file := range files {
		if !filepath.IsAbs(file) {
			files[i] = filepath.Join(base, file)
		}
	}
	return files, nil
}

// parseModulesDep returns the files that name needs, dependencies first. Each line is
// "file: dependency..."; depmod lists a dependency after the module that needs it.
func parseModulesDep(data []byte, name string) []string {
	want := moduleName(name)
	for _, line := range strings.Split(string(data), "\n") {
		file, deps, ok := strings.Cut(line, ":")
		if !ok || moduleName(file) != want {
			continue
		}
		fields := strings.Fields(deps)
		files := make([]string, 0, len(fields)+1)
		for i := len(fields) - 1; i >= 0; i-- {
			files = append(files, fields[i])
		}
		return append(files, strings.TrimSpace(file))
	}
	return nil
}

func findModule(base, name string) ([]string, error) {
	var found string
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") && moduleName(path) == moduleName(name) {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found == "" {
		return nil, fmt.Errorf("no such module in %s: %w", base, fs.ErrNotExist)
	}
	return []string{found}, nil
}

// insertModule loads one file into the kernel. An uncompressed file is passed as a
// descriptor, which lockdown and IMA's signature checks need.
func insertModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if strings.HasSuffix(file, ".ko") {
		return unix.FinitModule(int(f.Fd()), "", 0)
	}
	image, err := unpackModule(f, file)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", file, err)
	}
	return unix.InitModule(image, "")
}

// unpackModule decompresses a module; the file's suffix gives the format.
func unpackModule(r io.Reader, file string) ([]byte, error) {
	var plain io.Reader
	var err error
	switch filepath.Ext(file) {
	case ".gz":
		plain, err = gzip.NewReader(r)
	case ".xz":
		plain, err = xz.NewReader(r)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule)); err == nil {
			defer d.Close()
			plain = d
		}
	default:
		return nil, fmt.Errorf("unknown compression %q", filepath.Ext(file))
	}
	if err != nil {
		return nil, err
	}
	var image bytes.Buffer
	n, err := io.Copy(&image, io.LimitReader(plain, maxModule+1))
	if err == nil && n > maxModule {
		err = fmt.Errorf("larger than %d bytes", maxModule)
	}
	return image.Bytes(), err
}
