// Package dib holds the diskimage-builder element ironic-python-agent-careen, which
// adds careen to a new ramdisk. Its only Go code is the tests of the element's scripts.
// For an existing ramdisk see package ramdisk.
package dib
