// Package doctor examines whether a node can run containers, and says what it lacks.
//
// [Run] makes the checks of careen doctor: kernel, privileges, namespaces, mounts, control
// groups, the store, the clock, the network, and the registries that are named. Where it
// can, it tries things out instead of reading settings, and leaves nothing behind.
// [Require] makes the checks that an image asks for with the label [RequiresLabel],
// before its container is created.
//
// The package changes nothing on the node, with one exception: [Require] loads kernel
// modules when its caller allows it.
package doctor
