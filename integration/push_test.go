package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/harness"
	"golang.org/x/sys/unix"
)

// TestPush: what a step said is at the server when the step has ended, also the step
// that the node's end cut short, and that of an agent that was killed.
func TestPush(t *testing.T) {
	puts := make(chan [2]string, 10)
	var closed atomic.Bool
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if closed.Load() || err != nil || r.Header.Get("Authorization") != "Bearer s3cret" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		puts <- [2]string{r.Method + " " + r.URL.Path, unpacked(t, body)}
	}))
	t.Cleanup(server.Close)
	ca := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	config := writeFile(t, "careen.toml", fmt.Sprintf("[tls]\nca_files = [%q]\n[push]\nurl = \"%s/{node}/{run}.tar.gz\"\nauthorization_file = %q\n",
		ca, server.URL, writeFile(t, "auth", "Bearer s3cret\n")))
	agent, image := node(t, harness.WithFlags("--config", config))
	pushed := func() [2]string {
		select {
		case got := <-puts:
			return got
		case <-time.After(time.Minute):
			t.Fatalf("nothing is pushed:\n%s", agent.Log())
			panic("not reached")
		}
	}
	ask := func(id, line string) api.RunRequest {
		req := shell(image, line, "-e", "PASSWORD=hunter2")
		req.ID, req.Node = id, map[string]any{"uuid": "node-1"}
		return req
	}

	assert.Contains(t, agent.Get("/v1/config"), `{"key":"push.url","value":"`+server.URL+`/{node}/{run}.tar.gz"`)
	submit(t, agent, ask("one", "echo from the step; exit 3"))
	got := pushed()
	assert.Equal(t, "PUT /node-1/one.tar.gz", got[0])
	assert.Contains(t, got[1], "stdout F from the step\n")
	assert.Contains(t, got[1], `"exit_code": 3`)
	assert.NotContains(t, got[1], "hunter2")

	// The agent dies before the server takes it; the next one goes on.
	closed.Store(true)
	submit(t, agent, ask("two", "echo said before the crash"))
	require.Eventually(t, func() bool { return strings.Contains(agent.Log(), "trying again") }, time.Minute, 10*time.Millisecond)
	agent.Kill()
	closed.Store(false)
	agent.Launch()
	got = pushed()
	assert.Equal(t, "PUT /node-1/two.tar.gz", got[0])
	assert.Contains(t, got[1], "said before the crash\n")

	// The node goes down: the step is ended, and what it said is sent before.
	submit(t, agent, ask("three", "trap exit TERM; echo cut short; while :; do usleep 20000; done"))
	reaches(t, agent, "three", api.Running)
	require.NoError(t, unix.Kill(agent.Pid(), unix.SIGPWR))
	got = pushed()
	assert.Equal(t, "PUT /node-1/three.tar.gz", got[0])
	assert.Contains(t, got[1], `"code": "node_shutdown"`)
	<-agent.Exited()
}

// unpacked returns all files of a bundle, one after another.
func unpacked(t *testing.T, data []byte) string {
	var all strings.Builder
	plain, err := gzip.NewReader(bytes.NewReader(data))
	assert.NoError(t, err)
	for in := tar.NewReader(plain); err == nil; {
		if _, err = in.Next(); err == nil {
			_, err = io.Copy(&all, in)
		}
	}
	assert.ErrorIs(t, err, io.EOF)
	return all.String()
}
