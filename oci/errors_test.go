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
