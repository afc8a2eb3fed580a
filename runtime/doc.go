// Package runtime runs one container's life: pull, create, start, wait, stop,
// delete.
//
// It embeds containerd in this process, or is the client of one that runs
// already; either way containers are on containerd's record, in the namespace
// careen, and are kept by careen's own shim (package shim), so that they outlive
// the agent. Who starts the shims and talks to them is the one difference between
// the two: this process itself, or the external containerd's task service.
//
// It knows nothing of steps, policy or queues and retries nothing: package
// agent decides what happens, this package makes it happen and says how it
// went. Options become a runtime-spec in package oci before they get here.
package runtime
