package image_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/rootfs/authorities"
	"github.com/careen-project/careen/runtime/image"
)

// TestAuthorities: what the node is told to trust counts beside a registry's own files,
// and can change while a puller is there.
func TestAuthorities(t *testing.T) {
	s := newStore(t, "64m")
	first, second := registry.Start(t, registry.WithTLS()), registry.Start(t, registry.WithTLS(), registry.WithTokenAuth("", ""))
	ref, _ := first.Push(t, "team/tool:1", simple(t))
	other, _ := second.Push(t, "team/tool:1", simple(t))
	file := filepath.Join(t.TempDir(), "ca.pem")
	store := authorities.New(func() []authorities.Source { return []authorities.Source{{Path: file, From: "a test"}} }, nil)
	p := newPuller(t, s, func(cfg *image.Config) {
		cfg.Authorities = func() image.Authorities {
			b := store.Bundle()
			return image.Authorities{Certs: b.Certs, Pool: b.Pool(), Sources: b.String()}
		}
		// A directory of the registry's own, for another authority.
		copyFile(t, first.CA, filepath.Join(cfg.CertDirs[0], second.Host, "ca.crt"))
		write(t, filepath.Join(cfg.HostsDirs[0], first.Host, "hosts.toml"),
			fmt.Sprintf("server = \"https://%s\"\n[host.\"https://%s\"]\nca = %q\n", first.Host, second.Host, first.CA))
	})
	pulled := func(ref string) error {
		req := request(ref)
		req.Policy = image.Always
		_, err := p.Pull(s.ctx, req, nil)
		return err
	}
	for _, ref := range []string{ref, other} {
		err := pulled(ref)
		require.Equal(t, fault.TLSCA, fault.CodeOf(err), "%v", err)
		require.Contains(t, fault.RemedyOf(err), "beside the system's there are 0 certificates in "+file+" (a test): no such file or directory")
	}
	copyFile(t, second.CA, file)
	require.NoError(t, pulled(other), "with the registry's own directory")
	require.NoError(t, pulled(ref), "from the mirror")
	copyFile(t, first.CA, file)
	require.NoError(t, pulled(ref))
	err := pulled(other)
	require.Equal(t, fault.TLSCA, fault.CodeOf(err), "what is trusted no more: %v", err)
	require.Contains(t, fault.RemedyOf(err), "1 certificate in "+file)
}
