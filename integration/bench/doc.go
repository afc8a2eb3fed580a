// Command bench measures careen against podman and against the floor on one
// machine: what "make bench" runs. It makes its images from a fixed seed,
// serves them from a registry process of its own on loopback, and runs the
// candidates in turn, round by round, so that a slow minute of the machine hits
// them all. See docs/pull.md for what is compared.
//
// The floor is "igzip -dc layer | tar -x" for all layers at once, from memory
// to memory: no network, no digest.
package main
