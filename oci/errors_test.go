package oci_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
)

// TestEachBadOptionHasItsRemedy: text and remedy together have, for each of several
// bad options, what is wrong and a value that is right.
func TestEachBadOptionHasItsRemedy(t *testing.T) {
	_, err := oci.ParseRun([]string{"--cpus=a", "--memory=12x", "--ulimit=x", "image"}, oci.Caller{})
	require.Error(t, err)
	line := fault.Line(err)
	for _, example := range []string{"--cpus=1.5", "--memory=512m", "--ulimit=nofile=1024:2048"} {
		assert.Contains(t, line, "Write it like "+example)
	}
}

// TestAttachingToAPassedThroughOutput: podman refuses the two together, whatever is to be
// attached to.
func TestAttachingToAPassedThroughOutput(t *testing.T) {
	for _, attach := range []string{"--attach=stderr", "-a=", "--attach="} {
		_, err := oci.ParseRun([]string{attach, "--log-driver=passthrough", "image"}, oci.Caller{})
		assert.ErrorContains(t, err, "cannot be given together with --log-driver=passthrough", attach)
	}
	for _, fine := range [][]string{{"--log-driver=passthrough", "image"}, {"-a", "stdout", "--log-driver=none", "image"}} {
		_, err := oci.ParseRun(fine, oci.Caller{})
		assert.NoError(t, err, fine)
	}
}
