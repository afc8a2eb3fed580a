package vm

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hugelgupf/vmtest/qemu"
)

// Network says what a guest has of a network.
type Network int

// The networks. NetworkUp has eth0 at 10.0.2.15 with a route to the host at
// 10.0.2.2 and no further, NetworkDevice leaves the card to the guest's own
// system, which finds a DHCP server.
const (
	NetworkUp Network = iota
	NetworkDevice
	NetworkNone
)

// Config says what to boot. Its zero value is a bare guest without careen.
type Config struct {
	// Binary is a file of the host that becomes /usr/bin/careen.
	Binary string
	// Files are files by their path in the guest. What starts with "#!" or is an
	// ELF file is executable.
	Files map[string][]byte
	// HostFiles are the same, by path in the guest, read from paths on the host.
	HostFiles map[string]string
	// Links are symbolic links by their path in the guest.
	Links map[string]string
	// Memory is the guest's in MiB; 0 is 1024.
	Memory int
	// CPUs is the number of processors; 0 is 1. With several, a kernel that patches
	// its own code while another processor runs it may hang for ever: QEMU's
	// multi-threaded emulation then goes on executing the breakpoint that stood
	// there in between (soft lockups in asm_exc_int3 on Debian's 6.1).
	CPUs int
	// Kernel to boot; the zero value is that of [FindKernel].
	Kernel Kernel
	// Initramfs is an image to boot instead of the bare one. Everything above is
	// added to it.
	Initramfs string
	// Init is the guest's init; "" is /init.
	Init string
	// Cmdline is added to the kernel's command line.
	Cmdline []string
	// Modules are kernel modules, beside overlay, that the bare guest has files of.
	Modules []string
	// Load are kernel modules that are loaded before init runs.
	Load []string
	// Network is the guest's network.
	Network Network
	// Forward are the guest's TCP ports that are reached on the host's loopback, by
	// the host's port.
	Forward map[int]int
	// QEMU holds further arguments for QEMU.
	QEMU []string
	// Reboot lets the guest boot again when it asks to; else it ends.
	Reboot bool
	// BootTimeout limits the time until the guest serves commands; 0 is [Patience].
	BootTimeout time.Duration
}

func (c *Config) setDefaults() error {
	if c.Memory == 0 {
		c.Memory = 1024
	}
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	if c.Init == "" {
		c.Init = "/init"
	}
	if c.BootTimeout == 0 {
		c.BootTimeout = Patience
	}
	if c.Kernel == (Kernel{}) {
		kernel, err := FindKernel()
		if err != nil {
			return err
		}
		c.Kernel = kernel
	}
	return nil
}

// VM is a running guest.
type VM struct {
	t       testing.TB
	qemu    *qemu.VM
	console *console
	channel *channel
	// ended is closed when QEMU has ended.
	ended chan struct{}
}

// In returns the same guest for a subtest: its methods fail t.
func (v *VM) In(t testing.TB) *VM {
	c := *v
	c.t = t
	return &c
}

// Start boots a guest and returns when it serves commands. The test fails if it
// does not. The guest ends with the test; its console is logged if that failed.
func Start(t testing.TB, cfg Config) *VM {
	t.Helper()
	Require(t)
	v, err := start(t, cfg)
	if err != nil {
		t.Fatalf("cannot start a guest: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), v.channel.bootTimeout)
	defer cancel()
	if err := v.WaitReady(ctx); err != nil {
		t.Fatalf("cannot boot a guest: %v", err)
	}
	return v
}

func start(t testing.TB, cfg Config) (*VM, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	// Not t.TempDir: its paths are too long for the name of a socket.
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("cannot remove the guest's files: %v", err)
		}
	})
	image := filepath.Join(dir, "initramfs")
	if err := cfg.writeImage(image); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "port")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	v := &VM{t: t, console: newConsole(), ended: make(chan struct{})}
	v.channel = newChannel(listener, cfg.BootTimeout)
	v.qemu, err = qemu.Start(qemu.ArchAMD64, cfg.options(image, socket, v.console)...)
	if err != nil {
		listener.Close()
		return nil, err
	}
	go func() {
		// Wait also drains the console, without which the guest would block.
		err := v.qemu.Wait()
		listener.Close()
		v.channel.fail(fmt.Errorf("the guest has ended (%w)", err))
		close(v.ended)
	}()
	t.Cleanup(v.end)
	return v, nil
}

// options returns QEMU's command line.
func (c *Config) options(image, socket string, out *console) []qemu.Fn {
	args := []string{
		"-accel", "tcg", "-cpu", "max", "-nodefaults", "-display", "none",
		"-m", strconv.Itoa(c.Memory), "-smp", strconv.Itoa(c.CPUs),
		"-serial", "stdio",
		"-chardev", "socket,id=port,path=" + socket, "-serial", "chardev:port",
		"-device", "virtio-rng-pci",
	}
	if c.Network != NetworkNone {
		netdev := "user,id=net"
		for host, guest := range c.Forward {
			netdev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", host, guest)
		}
		args = append(args, "-netdev", netdev, "-device", "virtio-net-pci,netdev=net,romfile=")
	}
	cmdline := append([]string{"console=ttyS0", "rdinit=/.vm/init", "panic=-1"}, c.Cmdline...)
	if !c.Reboot {
		args = append(args, "-no-reboot")
	}
	return []qemu.Fn{
		qemu.WithQEMUCommand(qemuCommand), qemu.WithKernel(c.Kernel.Image), qemu.WithInitramfs(image),
		qemu.WithAppendKernel(cmdline...), qemu.WithVMTimeout(lifetime),
		qemu.ArbitraryArgs(append(args, c.QEMU...)...), qemu.WithSerialOutput(out),
	}
}

// end ends the guest and logs what the test may want to know.
func (v *VM) end() {
	v.Kill()
	if v.t.Failed() {
		v.t.Logf("console of the guest:\n%s", v.Console())
	}
}

// Kill ends the guest at once, as when the power is cut, and waits for its end.
func (v *VM) Kill() {
	select {
	case <-v.ended:
		return
	default:
	}
	if err := v.qemu.Kill(); err != nil && v.t.Context().Err() == nil {
		v.t.Logf("cannot kill QEMU: %v", err)
	}
	<-v.ended
}

// WaitReady waits until commands are served: after Start returned it waits for
// the next boot. It may be called once for each boot.
func (v *VM) WaitReady(ctx context.Context) error { return v.channel.waitReady(ctx) }

// Console returns what the kernel and the init have printed, the last MiB of it.
func (v *VM) Console() string { return v.console.String() }

// Patience limits each wait for a guest: a boot, a command, a condition, an end. Alone, the
// longest of them takes half a minute on two cores. The limit leaves room for a machine with
// much other work. A guest that hangs does not take that long: see silenceLimit.
const Patience = 10 * time.Minute

// lifetime limits the life of QEMU where the test process was killed.
const lifetime = 2 * time.Hour

// Run runs a shell script in the guest. It returns stdout and stderr in one string, and the
// exit code. The test fails if the guest does not answer within [Patience].
func (v *VM) Run(script string) (string, int) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, code, err := v.RunContext(ctx, script)
	if err != nil {
		v.t.Fatalf("cannot run %q in the guest: %v", script, err)
	}
	return string(out), code
}

// MustRun is Run for a script that has to succeed. It returns the output without
// the white space around it.
func (v *VM) MustRun(script string) string {
	v.t.Helper()
	out, code := v.Run(script)
	if code != 0 {
		v.t.Fatalf("%q in the guest ended with %d:\n%s", script, code, out)
	}
	return strings.TrimSpace(out)
}

// Await repeats a shell script in the guest until its exit code is 0, and returns the output
// of the last time, without the white space around it. The test fails if that does not happen
// within [Patience]; the message then has the output of the last time.
func (v *VM) Await(condition string) string {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	file := fmt.Sprintf("/.vm/await%d", awaits.Add(1))
	out, code, err := v.RunContext(ctx, "until { "+condition+"\n} >"+file+" 2>&1; do /.vm/busybox usleep 50000; done; cat "+file)
	if err != nil || code != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		last, _, _ := v.RunContext(ctx, "cat "+file)
		v.t.Fatalf("waiting in the guest for %q: %v (exit code %d); the condition last printed:\n%s", condition, err, code, last)
	}
	return strings.TrimSpace(string(out))
}

// awaits numbers the output files of [VM.Await].
var awaits atomic.Int64

// AwaitBoot waits until the guest serves commands again after a reboot. It may be called once
// for each boot. The test fails if the guest does not boot within [Patience].
func (v *VM) AwaitBoot() {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := v.WaitReady(ctx); err != nil {
		v.t.Fatalf("the guest does not boot: %v", err)
	}
}

// AwaitEnd waits until QEMU has ended by itself. The test fails if it does not within [Patience].
func (v *VM) AwaitEnd() {
	v.t.Helper()
	select {
	case <-v.ended:
	case <-time.After(Patience):
		v.t.Fatalf("the guest does not end within %s", Patience)
	}
}

// Leave runs a shell script that takes the guest down. The guest may be gone before it
// answers, so there is no result.
func (v *VM) Leave(script string) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	_, _, _ = v.RunContext(ctx, script)
}

// RunContext runs a shell script in the guest. Scripts may run at the same time.
// A context that ends leaves the script running.
func (v *VM) RunContext(ctx context.Context, script string) (out []byte, code int, err error) {
	return v.channel.run(ctx, script)
}

// WriteFile writes a file in the guest. It is for what is not known before the
// boot; it takes a second for some hundred kilobytes.
func (v *VM) WriteFile(path string, content []byte) {
	v.t.Helper()
	v.MustRun(": >" + quote(path))
	for len(content) > 0 {
		n := min(len(content), 6000)
		v.MustRun("printf %s " + encode(content[:n]) + " | base64 -d >>" + quote(path))
		content = content[n:]
	}
}

// ReadFile returns a file of the guest.
func (v *VM) ReadFile(path string) []byte {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, code, err := v.RunContext(ctx, "cat "+quote(path))
	if err != nil || code != 0 {
		v.t.Fatalf("cannot read %s in the guest: %v: %s", path, err, out)
	}
	return out
}

// quote makes a word of the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// console keeps the last of what the guest prints.
type console struct {
	mu   sync.Mutex
	text []byte
}

const consoleLimit = 1 << 20

func newConsole() *console { return &console{} }

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p...)
	if len(c.text) > 2*consoleLimit {
		c.text = append([]byte(nil), c.text[len(c.text)-consoleLimit:]...)
	}
	return len(p), nil
}

// Close is asked for by vmtest.
func (c *console) Close() error { return nil }

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ReplaceAll(string(c.text[max(0, len(c.text)-consoleLimit):]), "\r", "")
}
