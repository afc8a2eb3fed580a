package client_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/fault"
)

func TestResolveID(t *testing.T) {
	runs := []api.Run{{ID: "abc1", Name: "disk"}, {ID: "abd2", Name: "disk"}, {ID: "x"}}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/runs", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(runs)
	})
	mux.HandleFunc("GET /v1/runs/{id}", func(w http.ResponseWriter, r *http.Request) {
		for _, run := range runs {
			if run.ID == r.PathValue("id") {
				_ = json.NewEncoder(w).Encode(run)
				return
			}
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(api.Problem{Status: http.StatusNotFound, Code: string(fault.NotFound), Detail: "no such run"})
	})
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: mux}} // a test's own client
	server.Start()
	defer server.Close()
	c := client.New(socket)
	defer c.Close()
	for given, want := range map[string]string{"abc1": "abc1", "abc": "abc1", "disk": "abd2", "x": "x"} {
		id, err := c.ResolveID(t.Context(), given)
		require.NoError(t, err, given)
		require.Equal(t, want, id, given)
	}
	_, err = c.ResolveID(t.Context(), "ab")
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	require.ErrorContains(t, err, "ambiguous id prefix: abc1, abd2")
	_, err = c.ResolveID(t.Context(), "zzz")
	require.Equal(t, fault.NotFound, fault.CodeOf(err))
	require.True(t, client.Listening(socket))
	require.False(t, client.Listening(socket+"-none"))
}
