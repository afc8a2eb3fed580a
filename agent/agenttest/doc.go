// Package agenttest has the fakes for tests of the agent: a [Runner] whose containers do
// what a line of text says, a [DiskRunner] whose containers outlive the process that
// started them, and a [Resolver] that allows every request. Only tests import it.
package agenttest
