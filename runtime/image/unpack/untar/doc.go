// Package untar unpacks the tar stream of one image layer into a directory that
// overlayfs takes as a layer: deletions become overlay's whiteouts (a character
// device 0:0), opaque directories its attribute trusted.overlay.opaque.
//
// A layer is unpacked without its parents, so that layers can be unpacked at the
// same time. What depends on the parents is done in [Layer.Finish]: directories
// that the layer only passes through get the attributes they have below,
// whiteouts of what is not there go away. The one thing that cannot wait, a
// hard link to a file of a layer below, waits for the parents by itself.
//
// The result is what podman, Docker and containerd make of a layer: names are
// resolved within the layer, so an entry "lib/x" makes a directory lib even
// where a layer below has a symbolic link of that name.
//
// A stream is hostile until proved otherwise. No entry leaves the directory: no
// name is ever resolved by the kernel across a symbolic link, names that climb
// out are refused, and overlay's own attributes are not taken from a layer. The
// process must be root and nobody else may write to the directory.
package untar
