package httpd_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/runtime/container"
)

// planted are secrets in the forms in which programs write them. Each one contains hunter2.
var planted = []string{
	"ipa-agent-token=hunter2-token-of-this-node",
	`{"agent_secret_token": "hunter2", "redfish_password": "hun\"ter2 hunter2"}`,
	"X-Auth-Token: hunter2",
	"Authorization: Basic aGhunter2Og==",
	"authorization=Bearer hunter2hunter2",
	"DB_PASSWORD='hunter2 and more'",
	`ipmi_password="hunter2 and more"`,
	"pass the password: hunter2",
	"podman pull --creds me:hunter2 image",
	`["--creds", "me:hunter2", "image"]`,
	"--creds=me:hunter2,x",
	"sshkey=hunter2",
	"api_key: hunter2",
	"https://me:hunter2@registry.example/v2/",
	`"message": "bad {\"password\": \"hunter2\"}"`,
	"-----BEGIN RSA PRIVATE KEY-----\nMIIhunter2\nAAAA\n-----END RSA PRIVATE KEY-----",
	`{"auths": {"registry.example": {"auth": "aGhunter2"}}}`,
	"rootpwd=hunter2",
}

// TestBundleMasksSecrets puts secrets into every source of a bundle.
func TestBundleMasksSecrets(t *testing.T) {
	text := strings.Join(planted, "\n") + "\n"
	dir := t.TempDir()
	for name, original := range httpd.NodeFiles {
		path := filepath.Join(dir, filepath.Base(name))
		require.NoError(t, os.WriteFile(path, []byte("harmless=1 "+text), 0o600))
		httpd.NodeFiles[name] = path
		t.Cleanup(func() { httpd.NodeFiles[name] = original })
	}
	cfg := newConfig(t)
	cfg.NodeState = func() map[string][]byte { return map[string][]byte{"routes": []byte(text)} }
	cfg.Version.Version = "token=hunter2"
	cfg.Checks = func() []api.Check {
		return []api.Check{{Name: "store", Status: "warning", Detail: "https://me:hunter2@x/", Remedy: "--token hunter2"}}
	}
	rg := start(t, cfg)
	rg.submit(t, api.RunRequest{ID: "a", Step: "", Image: "run=forever", RunOptions: []any{"--env=A=hunter2", "--label=password=hunter2"},
		Env: map[string]string{"TOKEN": "hunter2"}}, api.Running)
	for line := range strings.SplitSeq(text, "\n") {
		rg.runner.Println("a", line)
	}
	rg.runner.Println("a", "the node knows hunter2-token-of-this-node")
	rg.runner.End("a", container.Exit{Code: 3})
	require.Eventually(t, func() bool { v, err := rg.Run("a"); return err == nil && v.State.Final() }, 10*time.Second, time.Millisecond)

	files := untar(t, rg.do(t, "GET", "/v1/runs/a/bundle", "", root).Body)
	require.Greater(t, len(files), len(httpd.NodeFiles)+5)
	for name, content := range files {
		require.NotContains(t, content, "hunter2", name)
		if strings.HasSuffix(name, ".json") {
			require.True(t, json.Valid([]byte(content)), "%s: %s", name, content)
		}
		if strings.HasPrefix(name, "careen-a/node/") && name != "careen-a/node/routes" {
			require.Contains(t, content, "harmless=1 ipa-agent-token=***\n")
		}
	}
	require.Contains(t, files["careen-a/run.json"], `"id": "a"`)
}

// TestBundleKeepsTheRest compares a bundle with the API, where there is no secret.
func TestBundleKeepsTheRest(t *testing.T) {
	rg := start(t, newConfig(t))
	const line = "key: value, monkey business at 10:00, tokenless passage, Basic functions, https://registry.example:5000/v2/@x"
	rg.submit(t, api.RunRequest{ID: "a", Image: "out=" + "x" + "/run=forever"}, api.Running)
	rg.runner.Println("a", line)
	rg.runner.End("a", container.Exit{})
	require.Eventually(t, func() bool { v, err := rg.Run("a"); return err == nil && v.State.Final() }, 10*time.Second, time.Millisecond)
	files := untar(t, rg.do(t, "GET", "/v1/runs/a/bundle", "", root).Body)
	require.Contains(t, files["careen-a/log/0000000001.log"], line)
	var got, want api.Run
	require.NoError(t, json.Unmarshal([]byte(files["careen-a/run.json"]), &got))
	require.NoError(t, json.Unmarshal(rg.do(t, "GET", "/v1/runs/a", "", root).Body.Bytes(), &want))
	require.Equal(t, want, got)
}

func untar(t *testing.T, r io.Reader) map[string]string {
	files := map[string]string{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		data, err := io.ReadAll(in)
		require.NoError(t, err)
		require.Len(t, data, int(h.Size))
		files[h.Name] = string(bytes.Clone(data))
	}
}
