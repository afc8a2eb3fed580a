package httpd_test

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
)

func TestSocketIsPrivateAndReplacedOnlyWhenDead(t *testing.T) {
	dir, err := os.MkdirTemp("", "careen")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sub", "s")
	ln, err := httpd.Listen(path, os.Getuid())
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	_, err = httpd.Listen(path, os.Getuid())
	require.Equal(t, fault.Conflict, fault.CodeOf(err), "a live one is not replaced: %v", err)
	require.NoError(t, ln.Close())
	require.NoFileExists(t, path)

	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	dead.SetUnlinkOnClose(false)
	require.NoError(t, dead.Close())
	require.FileExists(t, path)
	ln, err = httpd.Listen(path, os.Getuid())
	require.NoError(t, err, "a stale one is replaced")
	require.NoError(t, ln.Close())

	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err = httpd.Listen(path, os.Getuid())
	require.ErrorContains(t, err, "not a socket")
	require.FileExists(t, path)
	_, err = httpd.Listen(filepath.Join(dir, strings.Repeat("x", 120)), os.Getuid())
	require.ErrorContains(t, err, "107 bytes")
}

func TestOnlyThoseAllowedMayAsk(t *testing.T) {
	cfg := newConfig(t)
	cfg.AllowedUIDs = []uint32{990}
	rg := start(t, cfg)
	for uid, want := range map[uint32]int{0: 200, 990: 200, 1000: 403} {
		w := rg.do(t, "GET", "/v1/version", "", api.Peer{UID: uid})
		require.Equal(t, want, w.Code, "uid %d", uid)
		require.Equal(t, want == 403, strings.Contains(w.Body.String(), "--allow-uid"), "what to do: %s", w.Body)
	}
	w := &recorder{header: http.Header{}}
	req, err := http.NewRequest(http.MethodGet, "/v1/version", nil)
	require.NoError(t, err)
	rg.Handler().ServeHTTP(w, req)
	require.Equal(t, 403, w.code, "a connection whose peer is not known")
}

// recorder is the least that a handler can answer to.
type recorder struct {
	header http.Header
	code   int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(code int)        { r.code = code }

func TestRequestsAreReadStrictly(t *testing.T) {
	rg := start(t, newConfig(t))
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for name, c := range map[string]struct {
		method, target, body string
		code                 int
		field                string
	}{
		"unknown member":            {"POST", "/v1/runs", `{"image":"x","privileged":true}`, 400, "privileged"},
		"unknown member inside":     {"POST", "/v1/runs", `{"image":"x","terminal_size":{"columns":1,"rows":2,"depth":3}}`, 400, "terminal_size.depth"},
		"another case":              {"POST", "/v1/runs", `{"Image":"x"}`, 400, "Image"},
		"twice":                     {"POST", "/v1/runs", `{"image":"x","image":"y"}`, 400, "image"},
		"twice inside":              {"POST", "/v1/runs", `{"image":"x","args":{"a":1,"a":2}}`, 400, "args.a"},
		"a number for a string":     {"POST", "/v1/runs", `{"image":7}`, 400, "image"},
		"null for a string":         {"POST", "/v1/runs", `{"image":null}`, 400, "image"},
		"null for an object":        {"POST", "/v1/runs", `{"image":"x","terminal_size":null}`, 400, "terminal_size"},
		"null in a map":             {"POST", "/v1/runs", `{"image":"x","env":{"A":null}}`, 400, "env.A"},
		"a string for a list":       {"POST", "/v1/runs", `{"image":"x","command":"ls"}`, 400, "command"},
		"a number in a list":        {"POST", "/v1/runs", `{"image":"x","command":[1]}`, 400, "command"},
		"a number out of range":     {"POST", "/v1/runs", `{"image":"x","terminal_size":{"columns":99999,"rows":1}}`, 400, "terminal_size.columns"},
		"no object":                 {"POST", "/v1/runs", `[1]`, 400, "body"},
		"null":                      {"POST", "/v1/runs", `null`, 400, "body"},
		"something after it":        {"POST", "/v1/runs", `{"image":"x"} {}`, 400, "body"},
		"cut short":                 {"POST", "/v1/runs", `{"image":"x"`, 400, "body"},
		"no JSON":                   {"POST", "/v1/runs", `image=x`, 400, "body"},
		"no UTF-8":                  {"POST", "/v1/runs", "{\"image\":\"\xff\"}", 400, "body"},
		"too deep":                  {"POST", "/v1/runs", `{"image":"x","args":` + deep + `}`, 400, "args" + strings.Repeat(".a", 32)},
		"too large":                 {"POST", "/v1/runs", `{"image":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "body"},
		"empty":                     {"POST", "/v1/runs", ``, 400, "step"},
		"neither":                   {"POST", "/v1/runs", `{}`, 400, "step"},
		"bad id":                    {"POST", "/v1/runs", `{"image":"x","id":"../x"}`, 400, "id"},
		"id with a dot first":       {"POST", "/v1/runs", `{"image":"x","id":".x"}`, 400, "id"},
		"bad timeout":               {"POST", "/v1/runs", `{"image":"x","timeout":"soon"}`, 400, "timeout"},
		"no timeout at all":         {"POST", "/v1/runs", `{"image":"x","timeout":"0s"}`, 400, "timeout"},
		"negative timeout":          {"POST", "/v1/runs", `{"image":"x","silence_timeout":"-1s"}`, 400, "silence_timeout"},
		"bad exit code":             {"POST", "/v1/runs", `{"image":"x","reboot_exit_codes":[256]}`, 400, "reboot_exit_codes"},
		"bad grace":                 {"POST", "/v1/runs/x/abort", `{"grace":"x"}`, 400, "grace"},
		"unknown parameter":         {"GET", "/v1/runs?limit=1&colour=red", "", 400, "colour"},
		"empty parameter":           {"GET", "/v1/runs?state=", "", 400, "state"},
		"parameter twice":           {"GET", "/v1/runs?limit=1&limit=2", "", 400, "limit"},
		"bad parameter":             {"GET", "/v1/runs?limit=many", "", 400, "limit"},
		"bad state":                 {"GET", "/v1/runs?state=asleep", "", 400, "state"},
		"bad escape":                {"GET", "/v1/runs?limit=%zz", "", 400, "query"},
		"bad poll":                  {"GET", "/v1/runs/x/wait?timeout=1h", "", 400, "timeout"},
		"bad phase":                 {"GET", "/v1/steps?phase=lunch", "", 400, "phase"},
		"no phase":                  {"GET", "/v1/steps", "", 400, "phase"},
		"bad tail":                  {"GET", "/v1/runs/x/logs?tail=-1", "", 400, "tail"},
		"bad stream":                {"GET", "/v1/runs/x/logs?stream=stdin", "", 400, "stream"},
		"bad cursor":                {"GET", "/v1/runs/x/logs?after=x", "", 400, "after"},
		"bad size":                  {"POST", "/v1/runs/x/resize", `{"columns":0,"rows":1}`, 400, "columns"},
		"pull of nothing":           {"POST", "/v1/images/pull", `{}`, 400, "image"},
		"settings without a body":   {"PATCH", "/v1/config", " ", 400, "body"},
		"no such run":               {"GET", "/v1/runs/x", "", 404, ""},
		"no such pull":              {"GET", "/v1/pulls/x", "", 404, ""},
		"no such resource":          {"GET", "/v2/runs", "", 404, ""},
		"no such method":            {"PUT", "/v1/runs", "", 405, ""},
		"images in general":         {"DELETE", "/v1/images", "", 405, ""},
		"a path to clean":           {"GET", "/v1//runs", "", 404, ""},
		"a path that climbs":        {"GET", "/v1/runs/../../etc/passwd", "", 404, ""},
		"a run named with a slash":  {"GET", "/v1/runs/a%2Fb", "", 404, ""},
		"an image that is not here": {"DELETE", "/v1/images/docker.io%2Flibrary%2Fbusybox:1", "", 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := rg.do(t, c.method, c.target, c.body, root)
			require.Equal(t, c.code, w.Code, "%s", w.Body)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			var p api.Problem
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
			require.Equal(t, c.field, p.Field, "%s", w.Body)
			require.Equal(t, c.code, p.Status)
			require.NotEmpty(t, p.Code)
			require.True(t, strings.HasPrefix(p.Detail, "cannot ") || c.code == 404 || c.code == 405, p.Detail)
			if c.target == "/v1/runs" && c.code == 405 {
				require.Equal(t, "GET, HEAD, POST", w.Header().Get("Allow"))
			}
		})
	}
	require.Empty(t, rg.Runs())
	require.Empty(t, rg.runner.Trace())
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{}`, `{"image":"x"}`, `{"args":{"a":[1,{"b":null}]}}`, `[`, `{"a":{"a":{}}}`, `{"command":["a"]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var req api.RunRequest
		if err := httpd.Decode(data, &req); err != nil {
			require.Equal(t, fault.BadRequest, fault.CodeOf(err))
			var refused *fault.Error
			require.ErrorAs(t, err, &refused)
			require.NotEmpty(t, refused.Attrs["field"])
			return
		}
		// What is accepted means the same when it is written and read again.
		text, err := json.Marshal(req)
		require.NoError(t, err)
		var again api.RunRequest
		require.NoError(t, httpd.Decode(text, &again))
	})
}
