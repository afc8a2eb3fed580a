// Package registry gives tests a real registry (distribution v3, in this
// process, on loopback) with plain HTTP or TLS, with basic or token
// authentication, and with faults where the wire would have them. It also
// builds the images that go into it.
//
// Only tests and benchmarks import it: distribution must not become a part of
// the binary.
package registry
