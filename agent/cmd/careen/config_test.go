package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/cli"
)

// A list of images is longer than a terminal is wide, and what "careen config" is for.
func TestConfigCutsNoValue(t *testing.T) {
	value := strings.Repeat(`"registry.example/firmware:1", `, 20)
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/v1/config", r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		assert.NoError(t, json.NewEncoder(w).Encode(api.Config{
			Settings: []api.Setting{{Key: "container.allowed_containers", Value: value, From: "conductor"}},
		}))
	}))
	require.NoError(t, server.Listener.Close())
	server.Listener = listener
	server.Start()
	defer server.Close()

	out, err := os.Create(filepath.Join(dir, "out"))
	require.NoError(t, err)
	a := &app{console: cli.NewConsole(), socket: filepath.Join(dir, "s")}
	a.console.Out = out
	cmd := a.configCommand()
	cmd.SetArgs([]string{})
	require.NoError(t, cmd.ExecuteContext(t.Context()))
	require.NoError(t, out.Close())
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	assert.Contains(t, string(text), strings.TrimSpace(value))
}
