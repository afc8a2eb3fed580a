// Command bench measures careen against podman, containerd as it comes and the
// floor, on one machine: what "make bench" runs. It makes its images from a
// fixed seed, serves them from a registry process of its own on loopback, and
// runs the candidates in turn, round by round, so that a slow minute of the
// machine hits them all. Ratios are the medians of the rounds' own ratios. See
// docs/benchmarks.md for what is compared and why.
//
// The floor is "igzip -dc layer | tar -x" for all layers at once, from memory
// to memory: no network, no digest.
//
// The parts are cold, memory, warm, idle, size and scale; -only chooses some.
package main
