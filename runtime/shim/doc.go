// Package shim is the process that keeps one container while the agent is away.
//
// An agent with an embedded containerd starts it ([Spawn]), an external containerd
// does as a runtime v2 shim (see [Main]). It answers the task service over ttrpc and
// runs the container with libcontainer in its own process, so no runc binary exists
// and no command is executed but the container's init. It writes the container's
// output to the run's log itself and leaves an exit record in the run's directory when the
// container ends, so that neither output nor exit code depends on an agent being
// alive.
//
// It is not a general-purpose runtime: one container per shim, no exec, no
// checkpoint, no update of limits. Those calls answer "not implemented".
//
// The stdout address that the client gives with a task names the run's directory
// ([Target]); package container knows its layout. The shim writes there the output,
// the exit record and libcontainer's state.
package shim
