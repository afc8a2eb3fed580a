package httpd_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/oci"
)

// TestSchemathesis has schemathesis (https://schemathesis.io) make requests of the served
// openapi.yaml, valid ones and others, for about a minute, and compare every answer with
// it. $SCHEMATHESIS names the program; schemathesis.sh installs it. $SCHEMATHESIS_ARGS
// are further arguments, such as --seed=1.
func TestSchemathesis(t *testing.T) {
	program := os.Getenv("SCHEMATHESIS")
	if program == "" {
		t.Skip("$SCHEMATHESIS is not set; see schemathesis.sh")
	}
	cfg := newConfig(t)
	cfg.Resolver = strictResolver{&agenttest.Resolver{}}
	rg := exampleRig(t, cfg)
	handler := rg.Handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Long polls and followed logs end as they do when the agent stops.
		ctx, cancel := context.WithTimeout(r.Context(), time.Second/2)
		defer cancel()
		handler.ServeHTTP(w, r.WithContext(httpd.WithPeer(ctx, root)))
	}))
	defer srv.Close()
	here, err := filepath.Abs("testdata")
	require.NoError(t, err)
	args := []string{"--config-file=" + filepath.Join(here, "schemathesis.toml"), "run", srv.URL + "/v1/openapi.yaml", "--max-time=60", "--request-timeout=10", "--continue-on-failure", "--output-truncate=false"}
	cmd := exec.CommandContext(t.Context(), program, append(args, strings.Fields(os.Getenv("SCHEMATHESIS_ARGS"))...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PYTHONPATH="+here, "SCHEMATHESIS_HOOKS=schemathesis_hooks")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// strictResolver refuses options of a wrong type, as the resolver of the binary does.
type strictResolver struct{ *agenttest.Resolver }

func (r strictResolver) Resolve(req *api.RunRequest, local bool) (*policy.Resolved, error) {
	if err := errors.Join(checkOptions("run_options", req.RunOptions), checkOptions("pull_options", req.PullOptions)); err != nil {
		return nil, err
	}
	return r.Resolver.Resolve(req, local)
}

func (r strictResolver) ResolvePull(req *api.PullRequest, local bool) (*oci.Pull, error) {
	if err := checkOptions("pull_options", req.PullOptions); err != nil {
		return nil, err
	}
	return r.Resolver.ResolvePull(req, local)
}

func checkOptions(field string, v any) error {
	if list, ok := v.([]any); ok {
		for _, item := range list {
			if _, ok := item.(string); !ok {
				return fault.BadField(field, "it is not a list of strings")
			}
		}
		return nil
	}
	if _, ok := v.(string); ok || v == nil {
		return nil
	}
	return fault.BadField(field, "it is neither a string nor a list")
}
