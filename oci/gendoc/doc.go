// Package gendoc makes docs/options.md from the option table of package oci and from its
// own list of differences from podman. It is not in the binary.
package gendoc

//go:generate go test . -run TestOptionsDocumentIsCurrent -update
