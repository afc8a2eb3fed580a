// Package file replaces files atomically and reads files with a size limit.
//
// A reader of a replaced file sees the old content or the new content, never a
// mix, at any moment and after the writer was killed. What holds after a power
// cut depends on the [Durability] that the caller asks for.
//
// containerd's pkg/atomicfile and containers/storage's pkg/ioutils do the same
// replacement, but neither syncs the directory, so a replaced file can be the old
// one again after a power cut. The errors are those of package os, without a fault
// code: the caller knows what the file is for and what the operator can do.
//
// The package is a leaf: it imports nothing of careen.
package file
