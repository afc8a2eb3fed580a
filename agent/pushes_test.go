package agent_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/push"
	"github.com/careen-project/careen/runtime/container"
)

// untar returns the files of a tar by their name.
func untar(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := map[string]string{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		data, err := io.ReadAll(in)
		require.NoError(t, err)
		files[h.Name] = string(data)
	}
}

// TestPushSendsTheBundle: over HTTP, byte for byte but for what the node is at the
// moment, and without the step's secrets.
func TestPushSendsTheBundle(t *testing.T) {
	type put struct {
		path string
		body []byte
	}
	puts := make(chan put, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		puts <- put{r.Method + " " + r.URL.Path, body}
	}))
	defer server.Close()
	cfg := newConfig(t)
	var err error
	cfg.Push, err = push.New(push.Options{URL: server.URL + "/{node}/{run}.tar.gz"}, push.Config{})
	require.NoError(t, err)
	rg := start(t, cfg)
	defer rg.Close()
	rg.submit(t, api.RunRequest{ID: "r1", Image: "out=one/out=two/run=0s/exit=3", Node: map[string]any{"uuid": "node-1"},
		Env: map[string]string{"TOKEN": "hunter2"}})
	rg.end(t, "r1")
	var got put
	select {
	case got = <-puts:
	case <-time.After(time.Minute):
		t.Fatal("nothing was pushed")
	}
	require.Equal(t, "PUT /node-1/r1.tar.gz", got.path)
	unpacked, err := gzip.NewReader(bytes.NewReader(got.body))
	require.NoError(t, err)
	pushed := untar(t, unpacked)
	asked := untar(t, rg.do(t, "GET", "/v1/runs/r1/bundle", "", root).Body)
	for name, content := range asked {
		require.Contains(t, pushed, name)
		if !strings.Contains(name, "/node/") && !strings.HasSuffix(name, "/health.json") {
			require.Equal(t, content, pushed[name], name)
		}
	}
	require.Len(t, pushed, len(asked))
	require.Contains(t, pushed["careen-r1/run.json"], `"exit_code": 3`)
	require.NotEmpty(t, pushed["careen-r1/events.jsonl"])
	for name, content := range pushed {
		require.NotContains(t, content, "hunter2", name)
	}
	require.Eventually(t, func() bool {
		return strings.Contains(rg.do(t, "GET", "/metrics", "", root).Body.String(), `careen_pushes_total{result="delivered"} 1`)
	}, time.Minute, 5*time.Millisecond)
}

// server is a [exec.Pusher] in memory.
type server struct {
	mu    sync.Mutex
	began time.Time
	// answer is what it does; nil takes everything.
	answer func(ctx context.Context, run string) error
	log    []string
}

func (s *server) Target(node, run string) string { return "mem://" + node + "/" + run }

func (s *server) Put(ctx context.Context, _, run string, body io.Reader, size int64) error {
	data, err := io.ReadAll(body)
	if err != nil || int64(len(data)) != size {
		return fmt.Errorf("%d of %d bytes: %w", len(data), size, err)
	}
	s.mu.Lock()
	s.log = append(s.log, fmt.Sprintf("%v %s", time.Since(s.began).Round(time.Second), run))
	answer := s.answer
	s.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, run)
}

func (s *server) puts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *server) set(answer func(context.Context, string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func down(context.Context, string) error { return errors.New("connection refused") }

func hangs(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// pushing starts an agent with a server that answers so.
func pushing(t *testing.T, answer func(context.Context, string) error) (*rig, *server) {
	cfg := newConfig(t)
	s := &server{began: time.Now(), answer: answer}
	cfg.Push = s
	return start(t, cfg), s
}

func TestPushes(t *testing.T) {
	run := func(rg *rig, id, image string) { rg.submit(t, api.RunRequest{ID: id, Image: image}) }
	metric := func(rg *rig, result string) string {
		_, line, _ := strings.Cut(rg.do(t, "GET", "/metrics", "", root).Body.String(), `careen_pushes_total{result="`+result+`"} `)
		line, _, _ = strings.Cut(line, "\n")
		return line
	}
	for name, story := range map[string]func(t *testing.T){
		"a server that is down changes no outcome and delays no run": func(t *testing.T) {
			rg, s := pushing(t, down)
			run(rg, "a", "run=1s")
			run(rg, "b", "run=1s")
			b := rg.end(t, "b")
			require.Equal(t, time.Second, b.StartedAt.Sub(b.CreatedAt))
			require.Equal(t, api.Succeeded, b.State)
			time.Sleep(2 * time.Minute)
			require.Equal(t, []string{"1s a", "3s a", "7s a", "15s a", "31s a", "31s b", "33s b", "37s b", "45s b", "1m1s b"}, s.puts())
			a, err := rg.Run("a")
			require.NoError(t, err)
			require.Equal(t, api.Succeeded, a.State)
			require.Len(t, a.Warnings, 1)
			require.Regexp(t, `^the run's bundle was not pushed to mem://\S+/a: connection refused$`, a.Warnings[0])
			require.Equal(t, []string{"0", "2"}, []string{metric(rg, "delivered"), metric(rg, "failed")})
			require.NoError(t, rg.Close())
		},
		"a refusal is not repeated": func(t *testing.T) {
			rg, s := pushing(t, func(context.Context, string) error {
				return fmt.Errorf("x: %w", &push.Refused{Status: "403 Forbidden"})
			})
			run(rg, "a", "run=1s")
			time.Sleep(time.Hour)
			require.Equal(t, []string{"1s a"}, s.puts())
			require.NoError(t, rg.Close())
		},
		"a server that hangs has its time": func(t *testing.T) {
			rg, s := pushing(t, hangs)
			run(rg, "a", "run=1s")
			time.Sleep(65 * time.Second)
			require.Equal(t, []string{"1s a", "1m3s a"}, s.puts())
			require.NoError(t, rg.Close(), "and an agent that ends does not wait for it")
		},
		"the next agent goes on": func(t *testing.T) {
			rg, s := pushing(t, hangs)
			run(rg, "a", "run=1s")
			run(rg, "b", "run=1s")
			time.Sleep(10 * time.Second)
			s.set(nil)
			rg = rg.again(t, nil)
			time.Sleep(time.Second)
			require.Equal(t, []string{"1s a", "10s a", "10s b"}, s.puts())
			rg = rg.again(t, nil)
			time.Sleep(time.Hour)
			require.Len(t, s.puts(), 3, "and nothing is pushed twice")
			require.NoError(t, rg.Close())
		},
		"a reboot waits for what is pushed": func(t *testing.T) {
			rg, s := pushing(t, down)
			run(rg, "a", `run=1s/result={"reboot":true}`)
			time.Sleep(20 * time.Second) // between two attempts
			s.set(nil)
			require.NoError(t, rg.PrepareReboot(t.Context()))
			require.Equal(t, "20s a", s.puts()[len(s.puts())-1], "the pause is cut short")
			require.Equal(t, "1", metric(rg, "delivered"))
			require.NoError(t, rg.Close())
		},
		"but not for long": func(t *testing.T) {
			rg, _ := pushing(t, hangs)
			run(rg, "a", `run=1s/result={"reboot":true}`)
			began := time.Now()
			wish := <-rg.Reboots()
			require.Equal(t, "a", wish.Run)
			require.NoError(t, rg.PrepareReboot(t.Context()))
			require.Equal(t, 31*time.Second, time.Since(began))
			require.NoError(t, rg.Close())
		},
		"the node's end brings the output of what it ends": func(t *testing.T) {
			rg, s := pushing(t, nil)
			run(rg, "a", "run=forever/term=2s:0")
			run(rg, "b", "run=1s")
			time.Sleep(10 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.NoError(t, rg.Drain(ctx, true))
			puts := s.puts()
			slices.Sort(puts)
			require.Equal(t, []string{"10s b", "12s a"}, puts)
			require.NoError(t, rg.Close())
		},
		"a stuck container's output is pushed at once": func(t *testing.T) {
			rg, s := pushing(t, nil)
			run(rg, "a", "run=forever/term=ignore/kill=ignore")
			time.Sleep(time.Second)
			_, err := rg.Abort(context.Background(), "a", api.AbortRequest{})
			require.NoError(t, err)
			time.Sleep(time.Minute)
			require.Equal(t, []string{"41s a"}, s.puts())
			rg.runner.End("a", container.Exit{})
			time.Sleep(time.Minute)
			require.Len(t, s.puts(), 1)
			require.NoError(t, rg.Close())
		},
		"what waits is bounded, and who is deleted is left out": func(t *testing.T) {
			rg, s := pushing(t, hangs)
			for i := range 70 {
				run(rg, fmt.Sprintf("r%d", i), "run=0s")
				rg.end(t, fmt.Sprintf("r%d", i))
			}
			synctest.Wait()
			require.Equal(t, "6", metric(rg, "failed"))
			require.NoError(t, rg.Delete(context.Background(), "r69"))
			s.set(nil)
			time.Sleep(5 * time.Minute)
			require.Equal(t, "6", metric(rg, "failed"))
			require.Equal(t, "63", metric(rg, "delivered"))
			puts := s.puts()
			require.Contains(t, puts[0], " r0")
			require.Contains(t, puts[2], " r7", "the oldest that wait are given up")
			require.NoError(t, rg.Close())
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, story) })
	}
}
