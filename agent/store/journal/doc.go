// Package journal keeps what must survive the agent: small records, on stable storage
// before the change that they describe takes effect.
//
// A journal is one file of lines, "CRC32C JSON". The first line is a header with the
// format's version. A record is a whole snapshot under a key: the last record of a key
// holds, the earlier ones are history, and [Journal.Compact] drops them.
//
// What the package assumes about the disk, and how it handles faults:
//
//   - A write that failed or was cut short by a crash leaves a torn end. It is dropped
//     when the journal is opened, and cut off before the next record is written.
//   - A damaged line in the middle, the header included, is skipped and reported.
//   - A file in which no line can be read, and which is not some other text, is set aside
//     under the name journal.jsonl.damaged and reported.
//   - A file of a newer version, or of another program, is refused.
//   - A record is stable when fsync has returned. tmpfs and ramfs have no stable storage,
//     so there is no fsync.
//
// Files are opened through [Disk], so that a test can put a faulty disk below: the
// package needs no test hooks.
package journal
