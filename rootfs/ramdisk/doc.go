// Package ramdisk writes cpio archives as the Linux kernel unpacks them, and
// appends careen to the image of a ramdisk.
//
// The kernel takes a ramdisk's image to be any number of archives one after the
// other, each compressed in its own way, and unpacks them over one another. So
// careen can be added to an image that somebody else built, whatever it is
// compressed with, without unpacking it: [Append] does that.
//
// The archives are deterministic: no times, no owners, inode numbers counted
// from 1. The format is "newc", described in the kernel's documentation
// (Documentation/driver-api/early-userspace/buffer-format.rst). The package
// reads no archives and needs no privileges.
package ramdisk
