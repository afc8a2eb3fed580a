// Package image turns an image reference into an image that containerd can run: a
// committed chain of snapshots, the manifest and configuration in the content store, and
// an image record that protects them from containerd's garbage collector.
//
// [Puller.Pull] works in these steps. "Hook" is a function of type hooks: policy, progress
// and jitter are connected there, and the steps do not know of them.
//
//  1. Check the request, and list the full names that its reference may mean (names.go).
//     Only a short name has more than one; they are tried in turn.
//  2. With the policies missing and never, look for a present image (images.go). Hook
//     onPresent decides whether it may be used. If so, the pull ends here.
//  3. Open the source of the name (source.go): a registry with its mirrors, an OCI layout,
//     or an archive. If an image with this name is present, compare its digest with the
//     source's; if they are equal, hook onPresent, and the pull ends here.
//  4. Resolve: from the reference over indexes to the manifest for the platform
//     (manifest.go). Hook postManifest decides whether the image may be used. Then fetch and
//     check the configuration.
//  5. Create a lease, which protects what follows from the garbage collector (store.go).
//  6. Plan: find the highest layer whose snapshot is present (layers.go). Hook preLayers
//     may wait, then the snapshots are looked up again. Hook onPlan. Compare the rest with
//     the free space and memory (estimate.go).
//  7. For each absent layer, from the lowest up and several at a time:
//     a. If another pull is unpacking the same layer, wait for that (singleflight.go).
//     b. Hook preLayer. Download the blob, with resume and retry (package fetch), and
//     stream it into an empty snapshot's directory (layers_dir.go): digest, inflate, diff-ID
//     and untar run at the same time (package unpack). No blob is stored: in a ramdisk the
//     store is memory, and a stored blob would use it twice. The budget ends the pull before
//     the store or the memory is full (budget.go).
//     c. Wait until the layer below is committed, complete the directory with what depends
//     on that layer, and commit the snapshot. Hook postLayer.
//  8. Write configuration, manifest and image record, in this order, and delete the lease.
//
// If a step fails or ctx ends, deleting the lease deletes everything that the pull made; no
// snapshot, blob, file or goroutine remains. Where this process cannot use containerd's
// directories, containerd does step 7b and 7c itself (layers_containerd.go).
//
// What a registry, a manifest or a layer says is not trusted. [Limits] bounds sizes, counts
// and times, digests are checked before anything gets its name, and no file is unpacked
// outside of its snapshot. Every error is a *fault.Error that names the image, and the host,
// file or store that caused it (package failure).
//
// The package uses only containerd's service interfaces, so that containerd may be embedded
// or another process. It does not decide which images may run (package steps), does not
// parse options (package oci) and does not create containers (package runtime, its caller).
package image
