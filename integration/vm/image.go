package vm

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"github.com/careen-project/careen/rootfs/ramdisk"
)

//go:embed guest/init
var guestInit string

//go:embed guest/serve
var guestServe string

// writeImage writes the guest's initramfs to a file.
func (c *Config) writeImage(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err := errors.Join(c.image(w), w.Flush()); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// image writes the guest's ramdisk. With Config.Initramfs it is that image and
// the guest's end of the harness behind it.
func (c *Config) image(w io.Writer) error {
	if c.Initramfs != "" {
		base, err := os.Open(c.Initramfs)
		if err != nil {
			return err
		}
		defer base.Close()
		n, err := io.Copy(w, base)
		if err != nil {
			return err
		}
		// The kernel wants the next archive at a multiple of four bytes.
		if _, err := w.Write(make([]byte, (4-n%4)%4)); err != nil {
			return err
		}
	}
	a := &archive{Writer: ramdisk.NewWriter(w)}
	c.addHarness(a)
	if c.Initramfs == "" {
		c.addBare(a)
	}
	c.addFiles(a)
	if a.err != nil {
		return fmt.Errorf("make the guest's initramfs: %w", a.err)
	}
	return a.Close()
}

// archive adds files until one fails.
type archive struct {
	*ramdisk.Writer
	err error
}

func (a *archive) add(e ramdisk.Entry) {
	if a.err == nil {
		a.err = a.Add(e)
	}
}

func (a *archive) dir(path string, mode uint32) {
	a.add(ramdisk.Entry{Path: path, Mode: ramdisk.TypeDir | mode})
}

func (a *archive) link(path, target string) {
	a.add(ramdisk.Entry{Path: path, Mode: ramdisk.TypeLink | 0o777, Target: target})
}

func (a *archive) char(path string, major, minor uint32) {
	a.add(ramdisk.Entry{Path: path, Mode: ramdisk.TypeChar | 0o600, Major: major, Minor: minor})
}

// file adds content, executable if it looks like a program.
func (a *archive) file(path string, content []byte) {
	mode := uint32(0o644)
	if bytes.HasPrefix(content, []byte("#!")) || bytes.HasPrefix(content, []byte("\x7fELF")) {
		mode = 0o755
	}
	a.add(ramdisk.Entry{
		Path: path, Mode: ramdisk.TypeFile | mode, Size: int64(len(content)), Body: bytes.NewReader(content),
	})
}

// copy adds a file of the host.
func (a *archive) copy(path, from string) {
	if a.err != nil {
		return
	}
	content, err := os.ReadFile(from)
	if err != nil {
		a.err = err
		return
	}
	a.file(path, content)
}

// addHarness adds what is below /.vm, the harness's own and nobody else's, and two
// devices.
func (c *Config) addHarness(a *archive) {
	busybox, err := exec.LookPath(busyboxName)
	if err != nil {
		a.err = err
		return
	}
	load := []string{"virtio_pci", "virtio_net"}
	if c.Network == NetworkNone {
		load = nil
	}
	files, err := c.Kernel.files(append(load, c.Load...)...)
	if err != nil {
		a.err = err
		return
	}
	a.dir("/.vm", 0o700)
	a.copy("/.vm/busybox", busybox)
	a.file("/.vm/init", []byte(guestInit))
	a.file("/.vm/serve", []byte(guestServe))
	a.char("/.vm/port", 4, 65)
	// The kernel gives init the first of these; a shell starts nothing in the
	// background without the second.
	a.char("/dev/console", 5, 1)
	a.char("/dev/null", 1, 3)
	var list strings.Builder
	for i, file := range files {
		// Copies, numbered in their order: the guest's own modules may be elsewhere.
		path := fmt.Sprintf("/.vm/modules/%02d-%s", i, filepath.Base(file))
		a.copy(path, filepath.Join(c.Kernel.Modules, file))
		fmt.Fprintln(&list, path)
	}
	a.file("/.vm/load", []byte(list.String()))
	a.file("/.vm/next", []byte(c.Init+"\n"))
	if c.Network == NetworkUp {
		a.file("/.vm/network", nil)
	}
}

// addBare adds what makes a ramdisk of the least kind: a shell with its applets,
// an init that reaps, and the modules that careen may want to load.
func (c *Config) addBare(a *archive) {
	list, err := exec.Command(busyboxName, "--list").Output()
	if err != nil {
		a.err = err
		return
	}
	a.link("/bin/busybox", "/.vm/busybox")
	for _, applet := range strings.Fields(string(list)) {
		if applet != busyboxName {
			a.link("/bin/"+applet, "busybox")
		}
	}
	a.link("/init", "/bin/init")
	// Without an inittab busybox would ask for a login on terminals it has not.
	a.file("/etc/inittab", []byte("::ctrlaltdel:/bin/reboot -f\n"))
	base := "/lib/modules/" + c.Kernel.Release
	files, err := c.Kernel.files(append([]string{"overlay"}, c.Modules...)...)
	if err != nil {
		a.err = err
		return
	}
	for _, file := range files {
		a.copy(filepath.Join(base, file), filepath.Join(c.Kernel.Modules, file))
	}
	for _, file := range []string{"modules.dep", "modules.builtin"} {
		a.copy(filepath.Join(base, file), filepath.Join(c.Kernel.Modules, file))
	}
}

func (c *Config) addFiles(a *archive) {
	if c.Binary != "" {
		a.copy("/usr/bin/careen", c.Binary)
	}
	for _, path := range sorted(c.Files) {
		a.file(path, c.Files[path])
	}
	for _, path := range sorted(c.HostFiles) {
		a.copy(path, c.HostFiles[path])
	}
	for _, path := range sorted(c.Links) {
		a.link(path, c.Links[path])
	}
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
