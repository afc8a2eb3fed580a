package httpd_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/httpd"
)

// soon is within what time root is answered, whatever other users do.
const soon = 2 * time.Second

// listen serves a on a socket that every user may open.
func listen(t *testing.T, a *agent.Agent) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "careen") // a socket's path is short
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	socket = filepath.Join(dir, "s")
	ln, err := httpd.Listen(socket, os.Getuid())
	require.NoError(t, err)
	require.NoError(t, os.Chmod(socket, 0o666))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, os.RemoveAll(dir))
	})
	return socket
}

// flood opens n connections as user uid, sends text on each, and returns those that the
// kernel took. The test closes them.
func flood(t *testing.T, socket string, uid, n int, text string) (files []*os.File) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Credentials belong to a thread in Linux. This one ends with the goroutine.
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			t.Error(errno)
			return
		}
		for range n {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Error(err)
				return
			}
			file := os.NewFile(uintptr(fd), "client")
			files = append(files, file)
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
				break // the queue of the socket is full
			}
			_, _ = unix.Write(fd, []byte(text))
		}
	}()
	<-done
	t.Cleanup(func() {
		for _, f := range files {
			_ = f.Close()
		}
	})
	return files
}

// slow are ways to hold a connection.
var slow = map[string]string{
	"nothing":         "",
	"half a header":   "GET /v1/version HTTP/1.1\r\nHost: x",
	"half a body":     "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
	"a body for GET":  "GET /v1/version HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
	"a long poll":     "GET /v1/runs/a/wait?timeout=10m HTTP/1.1\r\nHost: x\r\n\r\n",
	"a log, followed": "GET /v1/runs/a/logs?follow=true HTTP/1.1\r\nHost: x\r\n\r\n",
	"idle":            "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n",
	"nowhere":         "POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
}

// TestOtherUsersDoNotKeepRootOut: connections of another allowed user and of users who
// may not ask, each in its slowest way, do not delay root.
func TestOtherUsersDoNotKeepRootOut(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be several users")
	}
	for name, text := range slow {
		for _, uid := range []int{1001, 65534} {
			t.Run(fmt.Sprint(name, " of ", uid), func(t *testing.T) {
				cfg := newConfig(t)
				cfg.AllowedUIDs = []uint32{1001}
				rg := start(t, cfg)
				rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever"}, api.Running)
				socket := listen(t, rg.Agent)
				require.NotEmpty(t, flood(t, socket, uid, 600, text))
				require.Equal(t, http.StatusOK, get(t, socket, soon))
			})
		}
	}
}

// TestIdleConnectionsGiveWay: connections between two requests do not keep out others of
// the same user.
func TestIdleConnectionsGiveWay(t *testing.T) {
	rg := start(t, newConfig(t))
	socket := listen(t, rg.Agent)
	require.NotEmpty(t, flood(t, socket, os.Getuid(), 500, slow["idle"]))
	require.Equal(t, http.StatusOK, get(t, socket, soon))
}

// get asks for the version as this user.
func get(t *testing.T, socket string, limit time.Duration) int {
	t.Helper()
	client := http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
	resp, err := client.Get("http://careen/v1/version")
	require.NoError(t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

// TestWhatIsRefusedIsNotReadFurther: the answer comes and the connection is closed while
// the rest of the request is still owed.
func TestWhatIsRefusedIsNotReadFurther(t *testing.T) {
	rg := start(t, newConfig(t))
	socket := listen(t, rg.Agent)
	for name, c := range map[string]struct {
		uid  int
		text string
		code int
	}{
		"a user who may not ask": {1001, "POST /v1/runs HTTP/1.1\r\nContent-Length: 1000\r\n", 403},
		"no body":                {1001, "GET /v1/version HTTP/1.1\r\n", 403},
		"no such resource":       {0, "POST /v2 HTTP/1.1\r\nContent-Length: 1000\r\n", 404},
		"no such method":         {0, "PUT /v1/runs HTTP/1.1\r\nContent-Length: 1000\r\n", 405},
		"bad query":              {0, "POST /v1/runs?x=y HTTP/1.1\r\nContent-Length: 1000\r\n", 400},
		"another type":           {0, "POST /v1/runs HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n", 415},
		"too large":              {0, "POST /v1/runs HTTP/1.1\r\nContent-Length: 1050000\r\n", 413},
		"a body where none goes": {0, "GET /v1/runs HTTP/1.1\r\nContent-Length: 1000\r\n", 400},
		"in pieces":              {0, "DELETE /v1/runs/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", 400},
		"no run to write to":     {0, "POST /v1/runs/x/stdin HTTP/1.1\r\nContent-Length: 1000\r\n", 404},
	} {
		t.Run(name, func(t *testing.T) {
			if c.uid != os.Getuid() && os.Getuid() != 0 {
				t.Skip("only root can be several users")
			}
			text := strings.Replace(c.text, "\r\n", "\r\nHost: x\r\n", 1) + "\r\n"
			file := flood(t, socket, c.uid, 1, text)[0]
			conn, err := net.FileConn(file)
			require.NoError(t, err)
			defer conn.Close()
			if c.code == 413 {
				_, err = conn.Write([]byte(strings.Repeat(" ", 1<<20+1)))
				require.NoError(t, err)
			}
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, c.code, resp.StatusCode)
			require.True(t, resp.Close, "it says that it closes the connection")
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			_, err = conn.Read(make([]byte, 1))
			require.True(t, err == io.EOF || err != nil && strings.Contains(err.Error(), syscall.ECONNRESET.Error()), "it is closed: %v", err)
		})
	}
}
