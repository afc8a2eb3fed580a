// Package ramdisk appends careen to the image of a ramdisk, and writes cpio archives
// that the Linux kernel unpacks.
//
// An image is any number of archives, one after the other, each with a compression of
// its own. The kernel unpacks each over those before it. So [Append] adds careen to a
// foreign image without unpacking it.
//
// The archives are deterministic: no times, no owners, inode numbers counted
// from 1. The format is "newc", described in the kernel's documentation
// (Documentation/driver-api/early-userspace/buffer-format.rst). The package
// reads no archives and needs no privileges.
package ramdisk
