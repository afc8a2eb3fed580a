// Package rootfs makes a node fit for containers, and tells what it lacks.
//
// On a host with an init system there is next to nothing to do. In a ramdisk the
// root is the kernel's own rootfs and whoever wrote /init may have mounted
// nothing at all; a container needs /proc, /sys, /dev, cgroups, overlayfs, a
// place for its files and a root that pivot_root(2) can leave. The package has
// three steps, called by package main and by the runtime in this order:
//
//   - [Enter] moves the process into a mount namespace whose root can be left by
//     pivot_root, where the node's own root cannot. It re-executes the process at
//     most once and does nothing on an ordinary host.
//   - [Prepare] mounts and loads whatever is missing, never what is there, and
//     returns a [Layout] that says what the node offers.
//   - [Doctor] looks at everything and changes nothing that stays.
//
// [Host] and [GatherNode] are the real answers to what package oci asks of a
// node. [Init] is the first process of a ramdisk that has no other init.
// Package initramfs, below this one, adds careen to a ramdisk's image.
//
// The package knows nothing of images, containers, requests or the socket, and
// executes no program: everything is done with system calls, since a node need
// not have mount, modprobe or tar. Errors are of type [fault.Error].
package rootfs
