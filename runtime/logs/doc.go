// Package logs writes and reads a container's output.
//
// The shim writes; the agent and the command line read. Only files lie between them, so
// output is kept while the agent is away, and a slow reader never blocks a container.
//
// The records are those of the Kubernetes container runtime interface, one a
// line, so that the tools which read such logs read these:
//
//	2026-01-02T15:04:05.000000000Z stdout F the text of a line
//
// F ends a line. P says that the line goes on in the next record of the same
// stream: a line longer than [MaxText], the last one of a stream that did not
// end with a newline, or a prompt that waits for an answer. The text is kept
// byte for byte, whatever its encoding.
//
// A log is a directory of segments, 0000000001.log and on. When all of them
// together reach the limit the oldest goes, so the newest output is what stays.
// A segment's name is never used twice in a directory: a reader that
// rotation has overtaken knows how many segments it missed, and reports that in a
// line of the stream careen.
//
// The package imports nothing of careen, since the shim links it.
package logs
