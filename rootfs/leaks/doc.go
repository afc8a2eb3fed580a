// Package leaks finds what a container left behind on the node: mounts, loop devices,
// device-mapper targets, md arrays, network links, and processes that moved out of the
// container's control group.
//
// [Record] writes down the state of the node before a container is created. [Since]
// compares the node with that record after the container was deleted, which may be done
// by a later agent. The comparison is best effort: what cannot be read counts as absent,
// and what another program set up meanwhile is reported too.
package leaks
