// Package fault is the vocabulary of careen's failures.
//
// Every error that can reach an operator is, or wraps, an [Error]: it says what
// was being done, on what, why it failed and what to do next, and carries a
// stable [Code] that programs may branch on. The API's problem documents, the
// outcome of a run, the exit code of the command line and the first line that
// Ironic's conductor shows are all made from it.
//
// The package imports nothing of careen, so every other package may return its
// errors. It does not log and does not decide what is retried beyond what
// [Code.Transient] states.
package fault
