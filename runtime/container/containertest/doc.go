// Package containertest is the acceptance suite of everything that runs containers for
// the agent: package runtime with real ones, and the fakes of package agenttest. What
// the suite does not say about an engine, the agent must not rely on.
package containertest
