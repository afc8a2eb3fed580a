package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/steps"
)

// TestPolicyJSONHoldsBeforeThePull: an image that it does not let in is refused when it
// is asked for, to be run or only pulled.
func TestPolicyJSONHoldsBeforeThePull(t *testing.T) {
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.json")
	cfg, _, err := steps.Load(steps.LoadOptions{
		Getenv: func(string) (string, bool) { return "", false }, CanonicalRun: oci.CanonicalRun, CanonicalPull: oci.CanonicalPull,
	})
	require.NoError(t, err)
	r := checkedResolver{Resolver: agent.NewResolver(cfg, nil, rootfs.Host(), ""), policy: policy}
	ask := func(image string) error {
		_, runErr := r.Resolve(&api.RunRequest{Image: image}, true)
		_, pullErr := r.ResolvePull(&api.PullRequest{Image: image}, true)
		assert.Equal(t, fault.CodeOf(runErr), fault.CodeOf(pullErr), image)
		return runErr
	}
	require.NoError(t, ask("registry.example/fw:1"), "without a file every image is let in")

	require.NoError(t, os.Symlink("/", filepath.Join(dir, "link")))
	require.NoError(t, os.WriteFile(policy, []byte(`{"default": [{"type": "reject"}], "transports": {
		"docker": {"good.example": [{"type": "insecureAcceptAnything"}], "signed.example": [{"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/k"}]},
		"oci": {"`+dir+`": [{"type": "insecureAcceptAnything"}]}}}`), 0o600))
	assert.NoError(t, ask("docker://good.example/fw:1"))
	assert.NoError(t, ask("oci:"+dir+"/layout"))
	assert.NoError(t, ask("fw:1"), "what a short name means is known when it is pulled")
	for _, image := range []string{
		"registry.example/fw:1", "signed.example/fw:1", "docker://fw:1", "oci:/layout", "oci:" + dir + "/link", "docker-archive:/fw.tar",
	} {
		assert.Equal(t, fault.Policy, fault.CodeOf(ask(image)), image)
	}

	require.NoError(t, os.WriteFile(policy, []byte("{"), 0o600))
	assert.Equal(t, fault.BadConfig, fault.CodeOf(ask("docker://good.example/fw:1")))
}

// TestDoctorReadsPolicyJSON: what would refuse every image of a rule is said before one is
// needed.
func TestDoctorReadsPolicyJSON(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.json")
	assert.Empty(t, policyChecks(policy))
	for text, want := range map[string]string{
		"{": doctor.StatusError,
		`{"default": [{"type": "insecureAcceptAnything"}]}`:                                   doctor.StatusOK,
		`{"default": [{"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/k"}]}`: doctor.StatusWarning,
		`{"default": [{"type": "sigstoreSigned", "keyPath": "` + policy + `.pub"}]}`:          doctor.StatusWarning,
	} {
		require.NoError(t, os.WriteFile(policy, []byte(text), 0o600))
		checks := policyChecks(policy)
		require.Len(t, checks, 1, text)
		assert.Equal(t, want, checks[0].Status, text)
		assert.Equal(t, want != doctor.StatusOK, checks[0].Remedy != "", text)
	}
}
