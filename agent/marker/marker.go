package marker

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
)

// MaxSize bounds what is kept, in bytes: EFI variables have little room.
const MaxSize = 1024

// The kernel's places; tests replace them.
const (
	efivars   = "/sys/firmware/efi/efivars"
	pstore    = "/sys/fs/pstore"
	pmsg      = "/dev/pmsg0"
	efiVendor = "-8f1d6a3e-6f0b-4c58-9d0e-63617265656e" // careen's; the end spells its name
)

// Marker keeps one small text over a reboot.
type Marker struct {
	kind string
	// path is the file, the variable's file, or the device that is written to; found
	// is where pstore shows what an earlier boot wrote.
	path, found string
}

// Open returns the marker that spec names: "file:PATH", "efivar", "efivar:NAME" or
// "pstore". It fails with code bad_config for anything else, and with code node
// where the node does not have what is named.
func Open(spec string) (*Marker, error) {
	kind, value, _ := strings.Cut(spec, ":")
	switch {
	case kind == "file" && filepath.IsAbs(value):
		return check(&Marker{kind: kind, path: value}, filepath.Dir(value), "mount what the file lies on")
	case kind == "efivar":
		if value == "" {
			value = "CareenRun"
		}
		if strings.ContainsAny(value, "/-") || len(value) > 64 {
			break
		}
		return check(&Marker{kind: kind, path: filepath.Join(efivars, value+efiVendor)}, efivars,
			"boot by UEFI and mount efivarfs there")
	case spec == "pstore":
		return check(&Marker{kind: kind, path: pmsg, found: pstore}, pmsg, "load ramoops with a pmsg_size")
	}
	return nil, &fault.Error{Code: fault.BadConfig, Op: "use the reboot marker", Subject: spec,
		Reason: "expected one of file:/PATH, efivar, efivar:NAME and pstore"}
}

// check refuses a marker whose place does not exist.
func check(m *Marker, place, remedy string) (*Marker, error) {
	if _, err := os.Stat(place); err != nil {
		return nil, &fault.Error{Code: fault.Node, Op: "use the reboot marker", Subject: place, Err: err,
			Remedy: "Leave the reboot marker out, or " + remedy}
	}
	return m, nil
}

// Write replaces the content by data: one line of at most [MaxSize] bytes. The error has
// code node.
func (m *Marker) Write(data []byte) error {
	if len(data) > MaxSize || bytes.IndexByte(data, '\n') >= 0 {
		return m.fail("write", errors.New("it is too long or has several lines"))
	}
	var err error
	switch m.kind {
	case "efivar":
		// Attributes: non-volatile, at boot and at run time (UEFI specification 8.2);
		// the variable has to come in one write.
		err = errors.Join(mutable(m.path), writeOnce(m.path, append([]byte{7, 0, 0, 0}, data...), os.O_CREATE|os.O_TRUNC))
	case "pstore":
		err = writeOnce(m.path, append(slices.Clone(data), '\n'), 0)
	default:
		err = file.Replace(m.path, data, 0o600, file.Stable)
	}
	return m.fail("write", err)
}

// Read returns the content, nil for none. The error has code node.
func (m *Marker) Read() ([]byte, error) {
	if m.kind == "pstore" {
		data, err := m.lastMessage()
		return data, m.fail("read", err)
	}
	data, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if m.kind == "efivar" && len(data) >= 4 {
		data = data[4:]
	}
	return trim(data), m.fail("read", err)
}

// lastMessage returns the last line that the boot before this one wrote. Messages
// of this boot are not shown by pstore.
func (m *Marker) lastMessage() ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(m.found, "pmsg-*"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var last []byte
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		lines := bytes.Split(bytes.TrimRight(data, "\n\x00"), []byte{'\n'})
		if line := trim(lines[len(lines)-1]); len(line) > 0 {
			last = line
		}
	}
	if string(last) == "{}" {
		return nil, nil
	}
	return last, nil
}

// Clear removes the content. It is no error if there is none; other errors have code node.
func (m *Marker) Clear() error {
	switch m.kind {
	case "pstore":
		err := writeOnce(m.path, []byte("{}\n"), 0)
		files, gerr := filepath.Glob(filepath.Join(m.found, "pmsg-*"))
		err = errors.Join(err, gerr)
		for _, path := range files {
			err = errors.Join(err, os.Remove(path))
		}
		return m.fail("clear", err)
	case "efivar":
		if err := mutable(m.path); err != nil {
			return m.fail("clear", err)
		}
	}
	err := os.Remove(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return m.fail("clear", err)
}

func (m *Marker) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fault.Error{Code: fault.Node, Op: op + " the reboot marker", Subject: m.path, Err: err,
		Remedy: "Leave the reboot marker out, or repair its place"}
}

// trim cuts what is longer than anything that Write keeps, and padding.
func trim(data []byte) []byte {
	data = bytes.Trim(data[:min(len(data), MaxSize+64)], "\x00\n ")
	if len(data) == 0 {
		return nil
	}
	return data
}

// writeOnce writes data in one system call.
func writeOnce(path string, data []byte, flags int) error {
	file, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// mutable takes the immutable flag off that efivarfs puts on each variable. A file
// system without such flags has nothing to take off.
func mutable(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	flags, err := unix.IoctlGetInt(int(file.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&immutable == 0 {
		return nil // the write itself tells whether it is possible
	}
	return unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable)
}
