// Package openrc starts careen by the real OpenRC, with the service file that the
// element and "careen ramdisk append" install: in a root of its own, by sysinit,
// boot and default, as a ramdisk does. get-openrc.sh gets OpenRC from this machine's
// Debian mirror without installing it; where that fails the test is skipped.
package openrc
