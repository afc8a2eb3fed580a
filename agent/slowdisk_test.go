package agent_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/store/journal"
	"github.com/careen-project/careen/rootfs/file/filetest"
)

// slowDisk is a disk on which a write waits while it is stopped.
type slowDisk struct {
	journal.Disk
	gate atomic.Pointer[chan struct{}] // a write waits until it is closed
}

func newSlowDisk() *slowDisk {
	d := &slowDisk{Disk: journal.OS{}}
	close(d.stop())
	return d
}

// stop has writes wait until the channel is closed.
func (d *slowDisk) stop() chan struct{} {
	gate := make(chan struct{})
	d.gate.Store(&gate)
	return gate
}

func (d *slowDisk) OpenFile(name string, flag int, perm fs.FileMode) (journal.File, error) {
	f, err := d.Disk.OpenFile(name, flag, perm)
	return slowFile{f, d}, err
}

type slowFile struct {
	journal.File
	disk *slowDisk
}

func (f slowFile) Write(p []byte) (int, error) {
	<-*f.disk.gate.Load()
	return f.File.Write(p)
}

// TestReadersDoNotWaitForTheDisk: while a record waits for the disk, every GET of the
// OpenAPI document answers within a second, and health says what waits.
func TestReadersDoNotWaitForTheDisk(t *testing.T) {
	t.Run("a disk that does not answer", func(t *testing.T) {
		disk := newSlowDisk()
		cfg := newConfig(t)
		cfg.Disk = disk
		readWhileStopped(t, cfg, func() func() {
			gate := disk.stop()
			return func() { close(gate) }
		})
	})
	t.Run("a frozen file system", func(t *testing.T) {
		cfg := newConfig(t)
		dir := filetest.Mount(t, "ext4", 16<<20)
		cfg.StateDir, cfg.Persistent = filepath.Join(dir, "state"), true
		readWhileStopped(t, cfg, func() func() { return filetest.Freeze(t, dir) })
	})
}

// getPaths returns all paths with GET of the document that the agent serves, and what
// their parameters stand for.
func getPaths(t *testing.T, rg *rig, values map[string]string) (paths []string) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	require.NoError(t, yaml.Unmarshal(rg.get(t, "/v1/openapi.yaml").Body.Bytes(), &doc))
	for path, methods := range doc.Paths {
		if _, ok := methods["get"]; !ok {
			continue
		}
		for from, to := range values {
			if strings.HasPrefix(path, from) {
				path = strings.Replace(path, "{id}", to, 1)
			}
		}
		require.NotContains(t, path, "{", "a parameter without a value")
		switch {
		case strings.HasSuffix(path, "/steps"):
			path += "?phase=clean"
		case strings.HasSuffix(path, "/wait"):
			path += "?timeout=10ms"
		case strings.HasSuffix(path, "/logs"):
			paths = append(paths, path+"?follow=true", path+"?tail=5")
		}
		paths = append(paths, path)
	}
	require.Greater(t, len(paths), 14)
	return paths
}

func readWhileStopped(t *testing.T, cfg agent.Config, stop func() (goOn func())) {
	s := serve(t, cfg)
	s.submit(t, api.RunRequest{ID: "runs", Image: "out=hello/run=forever"})
	s.waitFor(t, "runs", api.Running)
	s.submit(t, api.RunRequest{ID: "ended", Image: "out=hello/run=0s", Phase: "clean"})
	_, err := s.Abort(context.Background(), "ended", api.AbortRequest{})
	require.NoError(t, err)
	pull, err := s.StartPull(context.Background(), &api.PullRequest{Image: "pull=0s"}, root)
	require.NoError(t, err)
	_, err = s.Pull(context.Background(), pull.ID)
	require.NoError(t, err)
	paths := append(getPaths(t, s.rig, map[string]string{"/v1/runs/": "runs", "/v1/pulls/": pull.ID}),
		"/v1/runs/ended", "/v1/runs/ended/logs", "/v1/runs/ended/events", "/v1/runs/ended/bundle")

	goOn := stop()
	submitted := make(chan error, 1)
	go func() {
		_, _, err := s.Submit(context.Background(), &api.RunRequest{ID: "waits", Image: "run=0s"}, root)
		submitted <- err
	}()
	require.Eventually(t, func() bool {
		for _, c := range s.Health().Checks {
			if c.Name == "state" && c.Status == "error" && strings.Contains(c.Detail, "the record of run waits waits for the disk") {
				return true
			}
		}
		return false
	}, 10*time.Second, 10*time.Millisecond, "health says what it waits for")

	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket)
	}}
	defer transport.CloseIdleConnections()
	for _, path := range paths {
		if err := firstByte(transport, path); err != nil {
			t.Errorf("GET %s while the disk does not answer: %v", path, err)
		}
	}
	select {
	case err := <-submitted:
		t.Error("a run was accepted without a record of it", err)
	default:
	}
	goOn()
	require.NoError(t, <-submitted)
}

// firstByte wants a status and, where there is a body, its first byte within a second.
// The bound is the test: it is generous for what takes a millisecond.
func firstByte(transport *http.Transport, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://careen"+path, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 500 && !strings.HasSuffix(path, "/health") {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	if strings.Contains(path, "follow") {
		return nil // it may have nothing to say
	}
	if _, err = io.ReadFull(resp.Body, make([]byte, 1)); err == io.EOF {
		err = nil
	}
	return err
}
