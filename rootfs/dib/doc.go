// Package dib holds the diskimage-builder element ironic-python-agent-careen,
// which puts careen into a ramdisk that is built from scratch. It has no Go code
// but the tests of the element's scripts. For a ramdisk that is built already,
// see package initramfs.
package dib
