// Package image turns an image reference into an image that containerd can run:
// a committed chain of snapshots, the manifest and configuration in the content
// store, and an image record that keeps both alive.
//
// Layers are streamed: each one is downloaded, verified, inflated and unpacked
// as one pipeline, several layers at a time, and no compressed blob is kept. In
// a ramdisk the store is memory, so a blob that is written only to be read once
// would cost the node twice.
//
// What a registry, a manifest or a layer says is untrusted. Sizes, counts and
// times are bounded by [Limits], digests are checked before anything becomes
// visible under its name, and an unpacked file never lands outside its
// snapshot. A pull that fails or is cancelled leaves no snapshot, lease, blob,
// file or goroutine behind. Every error is a *fault.Error.
//
// The package uses containerd's service interfaces only, so the containerd may
// be the embedded one or another process. It does not decide which images may
// run (package steps), does not parse options (package oci) and does not create
// containers (package runtime, which is its caller).
package image
