// Package integration tests the built binary from outside, with a real registry
// and real containers, and holds what the packages below it have in common. It
// imports no internals of careen but its client.
package integration
