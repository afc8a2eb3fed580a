// Package journal keeps what must survive the agent: one small record per
// change of a run, on stable storage before the change takes effect.
//
// A journal is one file of lines, "CRC32C JSON", the first of which is a header
// with the format's version. A record is a whole snapshot under a key, so the
// last one of a key is the truth and the others are history; [Journal.Compact]
// drops the history. A record that a crash cut short is at the end of the file
// and is dropped when the journal is opened; a damaged one in the middle is
// passed over and reported. A file of a newer version is refused, never guessed at.
//
// Append returns when the record is on stable storage, except on tmpfs and
// ramfs, where there is none and fsync would be a wait for nothing.
//
// The package knows nothing of runs. Its only caller is package agent.
package journal
