// Package exec executes what package machine decides. One goroutine owns all runs:
//
//	inbox ─► machine.Step ─► store.Append ─► published state ─► effects
//	  ▲                                                            │
//	  └──────────────────────── events ◄───────────────────────────┘
//
// An event enters through the inbox: a request, the answer to an effect, or a tick of the
// timer. The machine decides. Records are durable before the new state is published and
// before its effects start. An effect that can take time runs in its own goroutine and
// sends an event back.
//
// Readers load the published state, an immutable value, and wait for nothing: not for the
// goroutine, not for the disk.
//
// The package knows how to do things and decides nothing about runs. It declares what it
// needs of the engine as [Runner] and of the policy as [Resolver].
package exec
