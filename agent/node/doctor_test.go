package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/rootfs/doctor"
)

// TestDoctorReadsPolicyJSON: doctor warns of a rule that refuses every image.
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
