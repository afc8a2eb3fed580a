// Package unpack streams one layer from its compressed blob into a directory and verifies
// it on the way: the blob's digest, the decompression, the digest of the tar stream, and
// the tar stream's entries, each in its own goroutine. See [Extract].
//
// It knows no registry and no containerd: the caller (package image) opens the blob, gives
// the directory (package untar) and commits it. Nothing of a layer is used before Extract
// has returned nil.
package unpack
