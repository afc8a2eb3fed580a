package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/careen-project/careen/integration/ipa/images"
	"github.com/careen-project/careen/integration/registry"
)

// stage stands in for a test, whose helpers make the registry and its images.
type stage struct {
	testing.TB
	cleanups []func()
}

func (s *stage) Helper()                  {}
func (s *stage) Cleanup(f func())         { s.cleanups = append(s.cleanups, f) }
func (s *stage) Context() context.Context { return context.Background() }
func (s *stage) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
func (s *stage) FailNow() { s.end(); os.Exit(1) }
func (s *stage) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	s.FailNow()
}

func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("", "careen-ipa-registry-")
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (s *stage) end() {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
}

func main() {
	s := &stage{}
	defer s.end()
	reg := registry.Start(s)
	images.Push(s, reg)
	fmt.Println(reg.Host)
	_, _ = io.Copy(io.Discard, os.Stdin)
}
