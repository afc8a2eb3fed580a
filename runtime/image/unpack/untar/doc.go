// Package untar unpacks the tar stream of one image layer into a directory that
// overlayfs takes as a layer: deletions become overlay's whiteouts (a character
// device 0:0), opaque directories its attribute trusted.overlay.opaque.
//
// A layer is unpacked without its parents, so that layers can be unpacked at the
// same time. [Layer.Finish] does the work that depends on the parents: directories
// without an entry in the layer get the attributes they have below, and
// whiteouts that hide nothing are removed. Only a hard link to a file of a layer
// below cannot wait for Finish: Extract waits for the parents.
//
// The result is the same as with podman, Docker and containerd: names are
// resolved within the layer, so an entry "lib/x" makes a directory lib even
// where a layer below has a symbolic link of that name.
//
// A stream is treated as hostile. No entry leaves the directory: the kernel never
// resolves a name across a symbolic link, names that leave the directory are refused, and
// overlay's own attributes in a layer are ignored. The process must be root, and no
// other process may write to the directory.
package untar
