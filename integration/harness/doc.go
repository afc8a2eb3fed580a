// Package harness drives the built careen binary from outside, as an operator or
// Ironic's agent would: it starts agents with directories of their own, runs
// commands against them, kills and restarts them, and proves at the end of a test
// that nothing was left on the node: no mount, cgroup, process, container,
// snapshot, lease or file.
//
// The binary is named by CAREEN_BINARY, or is bin/careen of the checkout. Agents
// of several tests can run side by side: everything that is compared is told
// apart by the agent's directories and its containers' ids.
package harness
