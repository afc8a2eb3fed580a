// Package conformance reads the corpus of what the real podman 4.3.1 made of option sets
// (oci/testdata/conformance) and writes careen's specs in the corpus's form, so that both can
// be compared. It is for tests: package oci's compare plans on a node made up for each
// case, package integration's what the built binary prints on this machine.
package conformance
