// Package vm boots Linux in QEMU for tests and runs commands in the guest.
//
// A guest is a stock Debian kernel and an initramfs made in memory, by default
// as bare as a ramdisk can be: busybox, the binary under test, a few kernel
// modules, and nothing mounted. Nothing of the host is shared. A test says
//
//	guest := vm.Start(t, vm.Config{Binary: "bin/careen", Memory: 1024})
//	out, code := guest.Run("careen doctor")
//
// and needs neither root nor KVM: QEMU emulates the processor, which is slow
// (a guest is up in about four seconds) but the same on every machine.
//
// # What is used
//
// QEMU is started and its console read by github.com/hugelgupf/vmtest/qemu. That
// module's other half is not used: it builds guests from u-root and its Go
// busybox, with commands compiled in for each test, where careen's promise is
// about a foreign, bare ramdisk; and it talks to a guest by waiting for words on
// the console, where these tests want an exit code and the whole output. The
// three packages it takes are small, u-root's tree is not among them.
//
// # The guest's end
//
// The first process is a shell script, /.vm/init, which opens the second serial
// port, whose numbers never change, so that it needs no /dev and no /proc; it
// sets up the network, starts the loop that serves commands and becomes the init
// that the test asks for. Commands run at the same time as long as they like;
// each answers with its output and exit code. The guest reaches the host's
// loopback at 10.0.2.2 and has no route to anything else.
//
// The packages that have to be installed are in packages.txt; [Missing] says
// which parts are not there. The kernel may also be unpacked without installing
// it, see get-kernel.sh, and named by CAREEN_VM_ROOT.
package vm
