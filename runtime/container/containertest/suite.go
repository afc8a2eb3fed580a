package containertest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/container"
)

// Engine is what the suite needs of an engine. The agent declares the whole interface.
type Engine interface {
	Image(context.Context, *oci.Pull, func(api.PullProgress)) (container.ImageInfo, error)
	Create(context.Context, container.CreateSpec) (container.Created, error)
	Start(context.Context, container.Container) (int, error)
	Wait(context.Context, container.Container) (container.Exit, error)
	Signal(context.Context, container.Container, syscall.Signal, bool) error
	Delete(context.Context, container.Container) (container.Leftovers, error)
	Existing(context.Context) ([]container.Existing, error)
	Stdin(context.Context, container.Container) (io.WriteCloser, error)
	Resize(context.Context, container.Container, api.TerminalSize) error
	Images(context.Context) ([]api.Image, error)
	RemoveImage(context.Context, string) error
}

// Subject is an engine under test, and how its containers are asked for.
type Subject struct {
	Engine Engine
	// Reopen closes the engine and returns another one that finds the same containers.
	// nil skips what needs it.
	Reopen func(t *testing.T) Engine
	// Exiting asks for a container that ends at once with an exit code, Endless for one
	// that runs until it is killed, and Echo for one that ends with its standard input
	// (nil skips the test of it).
	Exiting func(code int) *oci.Run
	Endless func() *oci.Run
	Echo    func() *oci.Run
}

// patience bounds what a loaded machine takes for one step of a container.
const patience = 2 * time.Minute

// made is a container of a test.
type made struct {
	container.Container
	t      *testing.T
	engine Engine
}

// Run runs the suite. newSubject is called for each test.
func Run(t *testing.T, newSubject func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"a whole life": wholeLife, "a container starts once": startsOnce, "wait may be repeated": waitRepeats,
		"a cancelled wait leaves the container": cancelledWait, "SIGKILL ends a container": killEnds,
		"delete of any state": deleteAnyState, "a container that is not there": absent,
		"standard input": standardInput, "input and size of a container that has ended": endedConflicts, "a new engine finds the containers": reopened, "images by name": images,
	} {
		t.Run(name, func(t *testing.T) { test(t, newSubject(t)) })
	}
}

// make makes a container in a new run directory.
func (s Subject) make(t *testing.T, stdin bool, run *oci.Run) *made {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	image, err := s.Engine.Image(ctx, run.Pull(), func(api.PullProgress) {})
	require.NoError(t, err)
	var id [32]byte
	_, _ = rand.Read(id[:])
	c := container.Container{Run: "run-" + hex.EncodeToString(id[:4]), ID: hex.EncodeToString(id[:]),
		Dir: filepath.Join(t.TempDir(), "run")}
	require.NoError(t, os.Mkdir(c.Dir, 0o700))
	_, err = s.Engine.Create(ctx, container.CreateSpec{Container: c, Run: run, Image: image, Stdin: stdin})
	require.NoError(t, err)
	m := &made{c, t, s.Engine}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		_, err := m.engine.Delete(ctx, c)
		assert.NoError(t, err)
	})
	return m
}

func (m *made) start() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	pid, err := m.engine.Start(ctx, m.Container)
	require.NoError(m.t, err)
	assert.Positive(m.t, pid)
}

func (m *made) wait() container.Exit {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	exit, err := m.engine.Wait(ctx, m.Container)
	require.NoError(m.t, err)
	return exit
}

func (m *made) remove() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	_, err := m.engine.Delete(ctx, m.Container)
	require.NoError(m.t, err)
	assert.Nil(m.t, m.existing())
}

// existing returns what the engine lists of the container, nil for nothing.
func (m *made) existing() *container.Existing {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	all, err := m.engine.Existing(ctx)
	require.NoError(m.t, err)
	i := slices.IndexFunc(all, func(e container.Existing) bool { return e.ID == m.ID })
	if i < 0 {
		return nil
	}
	assert.Equal(m.t, m.Container, all[i].Container)
	return &all[i]
}

// is checks the state that the engine lists.
func (m *made) is(state container.State) container.Existing {
	m.t.Helper()
	found := m.existing()
	require.NotNil(m.t, found, "the container is not listed")
	require.Equal(m.t, state, found.State)
	return *found
}

func wholeLife(t *testing.T, s Subject) {
	m := s.make(t, false, s.Exiting(3))
	m.is(container.StateCreated)
	m.start()
	exit := m.wait()
	assert.Equal(t, 3, exit.Code)
	assert.Zero(t, exit.Signal)
	assert.WithinDuration(t, time.Now(), exit.ExitedAt, patience)
	found := m.is(container.StateStopped)
	require.NotNil(t, found.Exit)
	assert.Equal(t, 3, found.Exit.Code)
	m.remove()
	// The agent reads the output later.
	assert.DirExists(t, container.Dir(m.Dir).Log())
	assert.NoDirExists(t, container.Dir(m.Dir).Control())
	assert.NoError(t, container.Dir(m.Dir).Remove())
}

func startsOnce(t *testing.T, s Subject) {
	m := s.make(t, false, s.Endless())
	m.start()
	_, err := m.engine.Start(t.Context(), m.Container)
	require.Error(t, err)
	m.is(container.StateRunning)
}

func waitRepeats(t *testing.T, s Subject) {
	m := s.make(t, false, s.Exiting(0))
	exits := make(chan container.Exit, 1)
	go func() { // before the start
		exit, err := m.engine.Wait(t.Context(), m.Container)
		assert.NoError(t, err)
		exits <- exit
	}()
	m.start()
	want := m.wait()
	assert.Equal(t, want.Code, (<-exits).Code)
	assert.Equal(t, want.Code, m.wait().Code)
}

func cancelledWait(t *testing.T, s Subject) {
	m := s.make(t, false, s.Endless())
	m.start()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.engine.Wait(ctx, m.Container)
	require.ErrorIs(t, err, context.Canceled)
	m.is(container.StateRunning)
}

func killEnds(t *testing.T, s Subject) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all=%v", all), func(t *testing.T) {
			m := s.make(t, false, s.Endless())
			m.start()
			require.NoError(t, m.engine.Signal(t.Context(), m.Container, syscall.SIGKILL, all))
			exit := m.wait()
			assert.Equal(t, 137, exit.Code)
			assert.Equal(t, 9, exit.Signal)
			require.NoError(t, m.engine.Signal(t.Context(), m.Container, syscall.SIGKILL, all), "it has ended")
		})
	}
}

func deleteAnyState(t *testing.T, s Subject) {
	t.Run("created", func(t *testing.T) {
		m := s.make(t, false, s.Exiting(0))
		m.remove()
		m.remove()
		_, err := m.engine.Start(t.Context(), m.Container)
		require.Error(t, err)
	})
	t.Run("running", func(t *testing.T) {
		m := s.make(t, false, s.Endless())
		m.start()
		m.remove()
		m.remove()
	})
}

func absent(t *testing.T, s Subject) {
	m := &made{container.Container{Run: "never", ID: fmt.Sprintf("%064d", 7), Dir: t.TempDir()}, t, s.Engine}
	m.remove()
	_, err := m.engine.Start(t.Context(), m.Container)
	require.Error(t, err)
	_, err = m.engine.Wait(t.Context(), m.Container)
	require.Error(t, err)
	require.NoError(t, m.engine.Signal(t.Context(), m.Container, syscall.SIGTERM, false))
	m.conflicts()
}

// conflicts checks that standard input and size of the terminal are refused with code conflict.
func (m *made) conflicts() {
	m.t.Helper()
	_, err := m.engine.Stdin(m.t.Context(), m.Container)
	assert.Equal(m.t, fault.Conflict, fault.CodeOf(err), "input: %v", err)
	err = m.engine.Resize(m.t.Context(), m.Container, api.TerminalSize{Columns: 80, Rows: 24})
	assert.Equal(m.t, fault.Conflict, fault.CodeOf(err), "size: %v", err)
}

func endedConflicts(t *testing.T, s Subject) {
	for _, stdin := range []bool{false, true} {
		t.Run(fmt.Sprintf("stdin=%v", stdin), func(t *testing.T) {
			if stdin && s.Echo == nil {
				t.Skip("its containers have no input")
			}
			m := s.make(t, stdin, s.Exiting(0))
			m.start()
			m.wait()
			m.conflicts()
		})
	}
}

func standardInput(t *testing.T, s Subject) {
	t.Run("not asked for", func(t *testing.T) {
		m := s.make(t, false, s.Endless())
		m.start()
		_, err := m.engine.Stdin(t.Context(), m.Container)
		require.Equal(t, fault.Conflict, fault.CodeOf(err), "%v", err)
	})
	if s.Echo == nil {
		return
	}
	t.Run("ends the container", func(t *testing.T) {
		m := s.make(t, true, s.Echo())
		m.start()
		in, err := m.engine.Stdin(t.Context(), m.Container)
		require.NoError(t, err)
		_, err = io.WriteString(in, "a line\n")
		require.NoError(t, err)
		require.NoError(t, in.Close())
		assert.Equal(t, 0, m.wait().Code)
	})
}

func reopened(t *testing.T, s Subject) {
	if s.Reopen == nil {
		t.Skip("its containers do not outlive it")
	}
	ended, created := s.make(t, false, s.Exiting(5)), s.make(t, false, s.Exiting(5))
	running := s.make(t, false, s.Endless())
	running.start()
	ended.start()
	ended.wait()
	s.Engine = s.Reopen(t)
	for _, m := range []*made{ended, created, running} {
		m.engine = s.Engine
	}
	require.Equal(t, 5, ended.is(container.StateStopped).Exit.Code)
	created.is(container.StateCreated)
	running.is(container.StateRunning)
	created.start()
	assert.Equal(t, 5, created.wait().Code)
	require.NoError(t, running.engine.Signal(t.Context(), running.Container, syscall.SIGKILL, true))
	assert.Equal(t, 137, running.wait().Code)
}

func images(t *testing.T, s Subject) {
	_, err := s.Engine.Images(t.Context())
	require.NoError(t, err)
	err = s.Engine.RemoveImage(t.Context(), "registry.example/not-there:1")
	require.Equal(t, fault.NotFound, fault.CodeOf(err), "%v", err)
}
