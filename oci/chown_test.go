package oci_test

import (
	"testing"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
	"github.com/stretchr/testify/require"
)

// TestOwnersOfTheNodeStay: U gives a bind's source to the container's user with all
// that is below it, which podman does to none of the node's own directories.
func TestOwnersOfTheNodeStay(t *testing.T) {
	host := conformance.NewHost()
	for _, dir := range []string{"/srv/data", "/usr/bin", "/run/lock", "/var/lib/fw", "/home/op"} {
		host.Dir(dir)
	}
	host.File("/etc/passwd", "")
	host.Link("/bin", "usr/bin")
	host.Link("/var/run", "/run")
	host.Link("/srv/here", "..")
	for line, refused := range map[string]bool{
		"-v /:/m:U": true, "-v /srv:/m:U,ro": true, "-v /srv/:/m:U": true, "-v /run/../srv:/m:U": true, "-v /var/run:/m:U": true,
		"-v /srv/here:/m:U": true, "-v /srv:/m:O,U": true, "-v /etc/passwd:/m:U": true, "-v /home/op:/m:U": true,
		"--mount type=bind,src=/var/lib,dst=/m,U": true, "--mount type=bind,src=/srv,dst=/m,chown=true": true,
		"-v /srv/data:/m:U": false, "-v /run/lock:/m:U": false, "-v /var/lib/fw:/m:O,U": false, "-v /srv:/m": false,
		"--mount type=bind,src=/srv,dst=/m,U=false": false, "-v srv:/m:U": false, "-v /bin:/m:U": false, "--tmpfs /srv:U": false,
	} {
		words := conformance.Words(line)
		_, err := oci.ParseRun(append(words, "image"), oci.Caller{Host: host, Environ: map[string]string{"HOME": "/home/op"}})
		if !refused {
			require.NoError(t, err, line)
			continue
		}
		require.ErrorContains(t, err, "U would give all of", line)
		require.Equal(t, oci.ExitDenied, oci.ExitCode(err), line)
	}
}
