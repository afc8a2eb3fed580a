package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
)

func TestOptionsThatArriveAsOneArgument(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{[]string{"--rm --network=host", "image"}, []string{"--rm", "--network=host", "image"}},
		{[]string{"--rm --network=host -v /dev:/dev", "image"}, []string{"--rm", "--network=host", "-v", "/dev:/dev", "image"}},
		{[]string{"--network=host --volume /dev:/dev", "image"}, []string{"--network=host", "--volume", "/dev:/dev", "image"}},
		{[]string{"-v /dev:/dev", "image"}, []string{"-v", "/dev:/dev", "image"}},
		{[]string{"--rm --privileged", "-v /dev:/dev", "image"}, []string{"--rm", "--privileged", "-v", "/dev:/dev", "image"}},
		{[]string{"--rm --network=host", "image", "sh", "-c", "-x -y"}, []string{"--rm", "--network=host", "image", "sh", "-c", "-x -y"}},
		// What podman accepts as it is.
		{[]string{"-e", "A=b c", "image"}, []string{"-e", "A=b c", "image"}},
		{[]string{"--env=A=-b -c", "image"}, []string{"--env=A=-b -c", "image"}},
		{[]string{"--label=a b", "image"}, []string{"--label=a b", "image"}},
		{[]string{"--rm", "image", "sh", "-c", "-x -y"}, []string{"--rm", "image", "sh", "-c", "-x -y"}},
		// The error names a wrong option.
		{[]string{"--rm --memory=plenty", "image"}, []string{"--rm", "--memory=plenty", "image"}},
		{[]string{"--memory=plenty", "image"}, []string{"--memory=plenty", "image"}},
	} {
		assert.Equal(t, c.want, splitGlued(c.in, validRun), "%q", c.in)
	}
	assert.Equal(t, []string{"--tls-verify=false", "--quiet", "image"}, splitGlued([]string{"--tls-verify=false --quiet", "image"}, validPull))
	assert.Equal(t, []string{"--tls-verify=false", "image"}, splitGlued([]string{"--tls-verify=false", "image"}, validPull))
}

func TestOptionsBeforeTheVerb(t *testing.T) {
	rest, err := skipGlobals([]string{"--log-level=debug", "--cgroup-manager", "cgroupfs", "run", "--rm", "x"})
	require.NoError(t, err)
	assert.Equal(t, []string{"run", "--rm", "x"}, rest)

	_, err = skipGlobals([]string{"--root", "/x", "run"})
	assert.Equal(t, fault.Unsupported, fault.CodeOf(err))
	assert.ErrorContains(t, err, "--root")
	_, err = skipGlobals([]string{"--log-level"})
	assert.Equal(t, fault.BadOption, fault.CodeOf(err))
}
