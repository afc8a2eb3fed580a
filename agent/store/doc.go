// Package store keeps what the agent knows of its runs outside of its memory: the
// journal, ids of forgotten runs (tombstones), the audit record, event logs, requests,
// and the output of runs that have ended.
//
// Two directories, with different promises:
//
//	StateDir   survives a reboot where the operator says so; holds no secret
//	  journal/journal.jsonl     one record per run; see package journal
//	  forgotten/journal.jsonl   tombstones
//	  audit.jsonl, audit.jsonl.1
//	  key                       makes the hash of a request
//	  runs/ID/                  log/, spec.json (redacted), events.jsonl of a run that ended
//	RunDir     memory of this boot; holds secrets
//	  runs/ID/                  the run directory; see container.Dir
//	  requests/ID.json          the request, until the run has ended
//	  events/ID.jsonl           the event log, until the run has ended
//
// [Store.Append] makes records durable. The executor calls it before it acts on a new
// state. Everything that a reader of the API needs is read without a lock: [Store.Status]
// and [EventLog.After] load immutable values.
//
// The package decides nothing. Package machine decides, package exec calls.
package store
