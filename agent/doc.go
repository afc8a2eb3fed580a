// Package agent assembles the agent: [New] joins an executor (package exec), the HTTP API
// (package httpd) and the policy (package policy) and gives each of them the interface that
// it declares. It decides nothing and has no state of runs.
//
//	httpd ──► exec ──► machine   what happens next: pure, one Step for each event
//	            │ ├──► store     journal, event logs, audit record, kept output
//	            │ └──► Runner    the engine: package runtime, or a fake of agenttest
//	            └────► Resolver  package policy: may it run, and with which options
//
// Start with the doc.go of package machine: it specifies the states of a run, what must be
// durable before which effect, who wins when abort, timeout and exit meet, recovery and
// retention. docs/architecture.md has the way of one request through all packages, and
// docs/life-of-a-run.md what an operator sees of it.
//
// An agent does not reboot the node. It hands a container's request for a reboot out on
// Reboots; package node acts on it.
package agent
