// Package agenttest has the fakes that package agent is tested with: a [Runner]
// whose containers do what a line of text says, a [DiskRunner] whose containers
// outlive the process that started them, and a [Resolver] that lets everything
// through. Nothing but tests imports it.
package agenttest
