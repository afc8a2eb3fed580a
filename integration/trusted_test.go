package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestToldToTrust gives an agent the authorities of two registries: one that careen.toml
// names, and one that IPA's own configuration gets later, as from virtual media.
func TestToldToTrust(t *testing.T) {
	harness.NeedRoot(t)
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, data, 0o644))
		return file
	}
	ca := func(r *registry.Registry) []byte {
		data, err := os.ReadFile(r.CA)
		require.NoError(t, err)
		return data
	}
	first, second := registry.Start(t, registry.WithTLS()), registry.Start(t, registry.WithTLS())
	one, _ := first.Push(t, tag, harness.Busybox(t))
	two, _ := second.Push(t, tag, harness.Busybox(t))
	put("cas/site.crt", ca(first))
	ipa := put("ipa.d/first.conf", nil)
	config := put("careen.toml", fmt.Appendf(nil, "ipa_config = [%q]\n[tls]\nca_files = [%q]\n", filepath.Dir(ipa), dir+"/cas"))
	agent := harness.Start(t, harness.WithFlags("--config", config))

	got := agent.Careen("run", "--rm", one, "true")
	require.Zero(t, got.Code, "%s", got)
	run := ended(t, agent, submit(t, agent, shell(two, "true")))
	require.Equal(t, string(fault.TLSCA), run.Outcome.Code)
	require.Contains(t, run.Outcome.Remedy, "1 certificate in "+dir+"/cas ("+config+":2)")

	// IPA copies from virtual media what lies flat in its directories.
	put("ipa.d/ca.pem", ca(second))
	put("ipa.d/media.conf", fmt.Appendf(nil, "[DEFAULT]\ncafile = %s\n", dir+"/ipa.d/ca.pem"))
	run = ended(t, agent, submit(t, agent, shell(two, "true")))
	require.Equal(t, api.Succeeded, run.State, "%+v", run.Outcome)

	got = agent.Careen("config")
	require.Zero(t, got.Code, "%s", got)
	require.Regexp(t, `(?m)^ca +\S+/careen.toml:2 +1 certificate in \S+/cas$`, got.Stdout)
	require.Regexp(t, `(?m)^ca +\S+/media.conf:2 +1 certificate in \S+/ca.pem$`, got.Stdout)
	put("cas/site.crt", []byte("lost"))
	require.Contains(t, agent.Get("/v1/health"), `"name":"ca","status":"warning"`)
	require.Contains(t, agent.Careen("config").Stderr, "no certificate in it")

	got = agent.Careen("doctor", "--config", config, first.Host, second.Host)
	require.Contains(t, got.Stdout, "site.crt: no certificate in it")
	require.Contains(t, got.Stdout, "does not know", "the first")
	require.Contains(t, got.Stdout, "answers in", "the second")
}
