// Package agent runs container steps for whoever asks on its socket, one after
// another, and knows of each how it ended, whatever dies.
//
// A request becomes a run:
//
//	        ┌──────────────── aborted, failed, timed_out, lost ◄───────────────┐
//	        │                      ▲             ▲             ▲               │
//	    ┌────────┐   slot    ┌─────────┐   ┌──────────┐   ┌─────────┐          │
//	──► │ queued │ ────────► │ pulling │ ► │ creating │ ► │ running │ ► succeeded
//	    └────────┘           └─────────┘   └──────────┘   └─────────┘          │
//	                            │  ▲            │            │  │              │
//	                            │  └── next container of ────┼──┘              │
//	                            │      a sequence            ▼                 │
//	                            └───────────────────────► stopping ────────────┘
//
// Only [Agent].transition moves a run, under one lock; a move that the diagram
// does not have is a defect and becomes an error. Each move is in the journal
// before it takes effect: a container that may run is on record first, so after
// a crash of the agent at any instruction [Agent.Recover] adopts what runs,
// reports what ended, calls lost what nobody can know, and never starts a
// container twice.
//
// Who wins when a container ends while it is aborted or times out is decided
// under the same lock: the first one to take it. Ending goes by a ladder: stop
// signal, grace, SIGKILL to every process, a bounded wait, and then the outcome
// stuck with what can be seen of the processes.
//
// The flow: package agent/httpd decodes and checks a request; submit resolves it through [Resolver] (the policy of package steps,
// the options of package oci), makes it durable and queues it; drive takes one
// run through its phases on a [Runner]; await watches over a container; finish
// makes the outcome, the audit record and room for the next.
//
// The package decides nothing about images, options or policy, executes nothing
// itself and does not know containerd; main wires it to package runtime. It does
// not reboot: it hands a container's wish out on [Agent.Reboots].
package agent
