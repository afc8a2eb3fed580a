package registry

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// Stage stands in for a test in a program of its own, so that the helpers that make
// a registry and its images serve there too. End undoes what they set up.
type Stage struct {
	// TB is nil: only what the helpers call is there.
	testing.TB
	cleanups []func()
}

// Helper does nothing.
func (s *Stage) Helper() {}

// Cleanup has f called by [Stage.End], the last one first.
func (s *Stage) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

// Context is never done.
func (s *Stage) Context() context.Context { return context.Background() }

// Errorf reports on standard error.
func (s *Stage) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// FailNow undoes everything and ends the program.
func (s *Stage) FailNow() {
	s.End()
	os.Exit(1)
}

// Fatalf reports and ends the program.
func (s *Stage) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	s.FailNow()
}

// TempDir makes a directory that goes with End.
func (s *Stage) TempDir() string {
	dir, err := os.MkdirTemp("", "careen-registry-")
	if err != nil {
		s.Fatalf("cannot make a directory: %v", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// End runs the clean-ups.
func (s *Stage) End() {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
}
