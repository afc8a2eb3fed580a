package rootfs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs"
)

// childEnv makes the test binary a child that prepares a node, in namespaces that
// the parent gave it.
const childEnv = "CAREEN_TEST_PREPARE"

// request is what a child is asked, report what it answers.
type request struct {
	Enter bool
	Opts  rootfs.PrepareOptions
}

type report struct {
	Layout    *rootfs.Layout
	Actions   []rootfs.Action
	Code      fault.Code
	Line      string
	Namespace string
	WorkDir   string
}

func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := child(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(text string) error {
	var req request
	if err := json.Unmarshal([]byte(text), &req); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	var rep report
	var err error
	if req.Enter {
		err = rootfs.Enter(rootfs.EnterOptions{Force: true, RunDir: req.Opts.RunDir})
	}
	if err == nil {
		rep.Layout, rep.Actions, err = rootfs.Prepare(context.Background(), req.Opts)
	}
	rep.Code, rep.Line = fault.CodeOf(err), fault.Line(err)
	if rep.Namespace, err = os.Readlink("/proc/self/ns/mnt"); err != nil {
		return err
	}
	if rep.WorkDir, err = os.Getwd(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(rep)
}

// prepareIn runs a request in a mount namespace of its own: nothing that it does
// to mounts is seen here.
func prepareIn(t *testing.T, req request) report {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	text, err := json.Marshal(req)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Dir = "/usr/share"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var rep report
	require.NoError(t, json.Unmarshal(out, &rep), "%s", out)
	return rep
}

func TestPrepareAnOrdinaryHost(t *testing.T) {
	dir := t.TempDir()
	opts := rootfs.PrepareOptions{RunDir: filepath.Join(dir, "run"), StoreDir: filepath.Join(dir, "store")}
	rep := prepareIn(t, request{Opts: opts})
	require.Empty(t, rep.Line)
	for _, a := range rep.Actions {
		require.NotContains(t, []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/sys/fs/cgroup"}, a.Subject, "it was there: %s", a)
	}
	require.True(t, rep.Layout.PivotRoot && rep.Layout.Overlay && !rep.Layout.Entered, "%+v", rep.Layout)
	require.False(t, rep.Layout.StoreTmpfs, "a disk is not memory: %+v", rep.Layout)
	require.Equal(t, rootfs.DetectCgroups(), rep.Layout.CgroupMode)
	require.Contains(t, rep.Layout.CgroupControllers, "memory")
	require.DirExists(t, opts.RunDir)
}

func TestPrepareTheStore(t *testing.T) {
	const size = 64 << 20
	for _, tt := range []struct {
		name string
		opts rootfs.PrepareOptions
		code fault.Code
		line string
		test func(t *testing.T, l *rootfs.Layout)
	}{
		{name: "tmpfs of a size", opts: rootfs.PrepareOptions{Store: rootfs.StoreTmpfs, StoreSize: size, StoreInodes: 500}, test: func(t *testing.T, l *rootfs.Layout) {
			require.True(t, l.StoreTmpfs && l.Overlay, "%+v", l)
			require.EqualValues(t, size, l.StoreSize)
			require.EqualValues(t, 500, l.StoreInodes)
		}},
		{name: "tmpfs of the memory", opts: rootfs.PrepareOptions{Store: rootfs.StoreTmpfs}, test: func(t *testing.T, l *rootfs.Layout) {
			require.Greater(t, l.StoreSize, int64(size))
			require.GreaterOrEqual(t, l.StoreInodes, int64(65536))
		}},
		{name: "more than there is", opts: rootfs.PrepareOptions{Store: rootfs.StoreTmpfs, StoreSize: 1 << 60}, code: fault.Memory, line: "the node has"},
		{name: "unknown kind", opts: rootfs.PrepareOptions{Store: "disk"}, code: fault.BadConfig, line: "not a kind of store"},
		{name: "below a file", opts: rootfs.PrepareOptions{StoreDir: "/etc/hostname/x"}, code: fault.Node, line: "--root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.opts.StoreDir == "" {
				tt.opts.StoreDir = filepath.Join(dir, "store")
			}
			tt.opts.RunDir = filepath.Join(dir, "run")
			rep := prepareIn(t, request{Opts: tt.opts})
			require.Equal(t, tt.code, rep.Code, rep.Line)
			require.Contains(t, rep.Line, tt.line)
			if tt.test != nil {
				tt.test(t, rep.Layout)
			}
		})
	}
}

func TestEnterWhereNobodyHasTo(t *testing.T) {
	dir := t.TempDir()
	opts := rootfs.PrepareOptions{RunDir: filepath.Join(dir, "run"), StoreDir: filepath.Join(dir, "store")}
	rep := prepareIn(t, request{Enter: true, Opts: opts})
	require.Empty(t, rep.Line)
	require.True(t, rep.Layout.Entered && rep.Layout.PivotRoot && rep.Layout.Overlay, "%+v", rep.Layout)
	require.Equal(t, "/usr/share", rep.WorkDir)
	var did []string
	for _, a := range rep.Actions {
		did = append(did, a.String())
	}
	require.Contains(t, strings.Join(did, "\n"), "create mount namespace")
}

func TestTryOverlayLeavesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	require.NoError(t, rootfs.TryOverlay(dir))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Error(t, rootfs.TryOverlay(filepath.Join(dir, "absent")))
}
