// Package netready tells whether a node that is still booting, and not a registry, is the
// reason that a request failed, and waits for the node's network.
//
// A ramdisk may start its first step before DHCP is done, or when a BMC's USB network card
// has a link-local address and the default route. A pull then fails with "network is
// unreachable", a time-out or a name that does not resolve, and would succeed a few seconds
// later. [Missing] examines the node only after such a failure, so it costs nothing on a
// node that is ready. A [Waiter] waits until the node has what it lacked.
package netready
