// Package machine is the state machine of all runs. It is pure: [Step] takes a [State],
// an [Event] and the time, and returns a new State and an [Output] that says what to do.
// The package has no lock, clock, file or goroutine. Package exec calls it from one
// goroutine and does what it says.
//
// # States
//
// A run has one [RunState]:
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
// Recovery also moves a run from pulling or creating back to queued. The table "moves" is
// the same diagram. A move that it does not have is a defect in careen: the machine logs it
// with code internal and does not make it; a run that cannot end in its proper state ends
// as lost, so that its waiters return.
//
// Beside its state a run has the effect that it waits for ([Doing]) and the number of that
// effect ([Run].Call). An answer with another number is late, and is dropped.
//
// # One step
//
// The caller handles an [Output] in this order:
//
//  1. It keeps the request of a new run (KeepRequest) in the memory of this boot.
//  2. It makes Records durable. If this fails and Must is set, it drops the new State and
//     the Output, and steps [Unrecorded] with the event: what cannot be recorded does not
//     happen. If Must is not set, the new State holds, and the records are written later.
//  3. It publishes the new State, adds Entries to the event logs, and writes Logs.
//  4. It starts Effects. An effect that has an answer sends it back as an event.
//  5. It steps the answers that effects gave at once, then the events in Then, and after
//     those it sends Reply to the client.
//
// State is an immutable value. A step copies each run that it changes, so a reader may keep
// any State without a lock.
//
// # Durable before
//
// Must is set for these records; the effect on the right starts only after the record is on
// stable storage:
//
//	queued                      the answer 202 to the client
//	pulling                     [Pull]
//	creating, container's id    [Create]
//	Starting                    [Start]; from here on the container is never created again
//	running                     [Wait]
//
// If "running" cannot be written, the container runs already: the run goes on, and its
// record follows later. All other records are written before their effects too: the exit
// and what was read from the container before [Remove], the request to stop before
// [Signal], the final state with its outcome before [Audit] and [Conclude]. But an error
// does not hold these effects up: the container has ended or must end, and a full disk must
// not keep it. Health is not ready until the records are written.
//
// # A run from start to end
//
//	[Submit]    admit or refuse; queued
//	[Schedule]  a slot is free: pulling                    → [Pull]
//	[Pulled]    creating                                   → [Create]
//	[Created]   Starting is on record                      → [Start], which sets the reboot marker
//	[Started]   running                                    → [Wait], [Observe]
//	[Exited]    too late for an abort from here on         → [ReadEnd]
//	[EndRead]   exit, result and last output on record     → [Remove]
//	[Deleted]   leftovers on record
//	[Next]      the next part of a sequence: pulling; else → [KeepLog]
//	[LogKept]   final state with the outcome               → [Audit], [Conclude], [ClearMark], [Tidy]
//	[Tidied]    the run's files are in the state directory → [DropFiles], and [Retain]
//
// A failure before the start goes from where it happens to [Remove], if a container may
// exist, and then to [Next].
//
// # The end of a run
//
// The outcome is a function of the record and of the error that kept the container from its
// end, in this order:
//
//  1. The error has code stuck or lost: that is the outcome, whatever else was asked for.
//  2. A stop was applied: aborted, timed_out, or failed with code stalled; the cause says
//     which. The exit code does not matter.
//  3. Any other error: failed, with the error's code.
//  4. The container's exit: succeeded or failed.
//
// # Who wins when abort, timeout and exit meet
//
// Events are stepped one after another; the first one decides:
//
//   - [Exited] first: the container ended by itself. A later abort is refused with code
//     conflict, a later limit does not count.
//   - A stop first: the run ends by that stop, whatever the exit code. The first cause
//     stays. A second abort may only shorten the grace, a later timeout changes nothing.
//   - A stop of a running container that a critical section holds off is on record but not
//     applied ([Stop].Applied). If the container ends before the stop is applied, it ended
//     by itself.
//   - [Started] and a stop meet: the stop waits for the answer to [Start], and is applied
//     when supervision begins.
//   - A limit has passed when [Tick] or [Observed] finds so. If recovery finds a container
//     that has ended or is gone, limits count only after LostAfter.
//
// A stop while the image is pulled or the container created cancels the call. A call that
// ignores this is given up after StuckAfter.
//
// # Stop escalation
//
// The machine sends the stop signal to the first process, waits for the grace, sends SIGKILL
// to all processes, and waits for StuckAfter. podman's --timeout starts with SIGKILL. A
// container that is still there is stuck: its run ends as failed with code stuck, keeps its
// slot, and no run is accepted until it is gone. Its [Wait] goes on; when it ends, it is
// removed and the slot is free.
//
// A critical section holds off the first signal: the container's claim, until it ends or
// reaches its limit, or a part that is critical as a whole, for at most CriticalMax after
// the stop was asked for.
//
// # Recovery
//
// [Load] gives the machine the records, what containers exist, what requests are kept and
// what the reboot marker says. The machine first removes containers that no run goes on
// with. A record that forgets a container before it is gone would leave it on the node. Then
// [Resume] decides for each run that has not ended:
//
//	another boot            ends as its exit says if that is on record, else lost
//	Starting, exit known    removed, and the run ends so
//	Starting, runs          adopted: output, limits and abort go on
//	Starting, created       started; a container can start once only
//	Starting, ended         ends with its exit
//	Starting, gone          lost, when LostAfter has passed
//	a stop is on record     ends by that stop
//	otherwise               queued again, in its place
//
// A container that runs without a record, or that the record calls not started, is adopted
// with a warning: it may be a firmware update. No container is started twice.
//
// A container that cannot be removed keeps new runs from starting. A run that only the
// reboot marker names, of another boot, is added as lost.
//
// # Reboot
//
// A run whose outcome has RebootRequested sets RebootBy: no run is accepted or started in
// this boot until that run is deleted. The machine does not reboot; [RequestReboot] hands the
// request out. [PrepareReboot] ends the queue with code reboot_pending and names the active
// runs to wait for.
//
// # Retention
//
// Of the runs that ended, newest first, KeepRuns are kept, and of KeepLogs of them, within
// KeepBytes, the output too. [RemoveOutput] removes output, events and large results;
// [Forget] removes the run and leaves its id as a tombstone. Retention leaves out a stuck
// run, a run whose files are not in order yet, and the run that asked for a reboot.
package machine
