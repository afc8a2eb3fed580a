// Package marker keeps the reboot marker: a few hundred bytes that survive a reboot of a
// node without a disk for the journal. The place is a file on the EFI system partition, an
// EFI variable, or the kernel's pstore.
//
// The agent sets the marker before it starts a container and clears it when the container
// has ended. A marker that is found after a boot names the container that the reboot
// interrupted. Each kind must be switched on: flash wears out, and firmware has bugs.
//
// The package does not know what the bytes mean. Package exec declares what it needs as
// exec.Marker.
package marker
