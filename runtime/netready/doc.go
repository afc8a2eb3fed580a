// Package netready tells a node that is still booting from a registry that is down.
//
// A ramdisk may start its first step before DHCP is done, or after a BMC's USB
// network card has got a link-local address and the default route with it. A pull then
// fails with "network is unreachable", a time-out or a name that nobody resolves, and
// would be right a few seconds later. [Missing] looks at the node only after such a
// failure, so it costs nothing where all is well; a [Gate] waits until the node has
// what was missing.
package netready
