// Package marker keeps a few hundred bytes where they survive a reboot of a node
// that has no disk to keep a journal on: a file on the EFI system partition, an
// EFI variable, or the kernel's pstore.
//
// The agent writes which container it is about to start and takes that back when
// the container has ended. What is found after a boot was interrupted by it. Each
// kind is opt-in: flash wears, and firmware has bugs.
//
// The package does not know what it keeps. Package agent declares what it needs
// of it as agent.Beacon.
package marker
