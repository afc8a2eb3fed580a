// Package rootfs prepares a node for containers.
//
// On a host with an init system almost nothing is missing. In a ramdisk the root is
// the kernel's own rootfs, and /init may have mounted nothing. A container needs /proc, /sys, /dev, cgroups, overlayfs, a
// place for its files and a root that pivot_root(2) can leave. The package has
// two steps, which package main calls in this order:
//
//   - [Enter] moves the process into a mount namespace whose root can be left by
//     pivot_root, where the node's own root cannot. It re-executes the process at
//     most once and does nothing on an ordinary host.
//   - [Prepare] mounts and loads what is missing, leaves alone what is there, and
//     returns a [Layout] that says what the node offers.
//
// [Host] and [GatherNode] answer what package oci asks of a node. [Init] is the first
// process of a ramdisk.
//
// The package knows nothing of images, containers, requests or the socket, and
// executes no program: it uses system calls, because a node may lack mount, modprobe
// and tar. Errors that reach an operator are of type [fault.Error].
package rootfs
