package image_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
)

// TestExternalContainerd pulls into a containerd of another process, with its
// directories in reach and without. CONTAINERD names the executable: "make
// test-external" builds one of each line.
func TestExternalContainerd(t *testing.T) {
	binary := os.Getenv("CONTAINERD")
	if binary == "" {
		t.Skip("needs an executable of containerd in CONTAINERD: make test-external")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	s := startContainerd(t, binary)
	for _, indirect := range []bool{true, false} {
		t.Run(fmt.Sprintf("indirect=%v", indirect), func(t *testing.T) {
			reg := registry.Start(t)
			ref, _ := reg.Push(t, "team/tool:1", simple(t))
			p := newPuller(t, s, func(c *image.Config) { c.DirectApply, c.Indirect = false, indirect })
			img, err := p.Pull(s.ctx, insecure(request(ref)), nil)
			require.NoError(t, err)
			s.view(t, "overlayfs", img.ChainID, func(root string) {
				require.FileExists(t, filepath.Join(root, "etc/a"))
				require.FileExists(t, filepath.Join(root, "etc/b"))
				require.NoFileExists(t, filepath.Join(root, "gone"))
			})
			again, err := p.Pull(s.ctx, insecure(request(ref)), nil)
			require.NoError(t, err)
			require.True(t, again.FromCache)
			require.NoError(t, p.Delete(s.ctx, img.Name))

			corrupt := bad(t, registry.File("a", string(noise(100000))))
			ref, _ = reg.Push(t, "team/bad:1", corrupt)
			reg.Faults.Corrupt(layerPath(corrupt, 0), -1, 5000)
			_, err = p.Pull(s.ctx, insecure(request(ref)), nil)
			require.Equal(t, fault.Digest, fault.CodeOf(err), "%v", err)
			require.Empty(t, s.contents(t))
		})
	}
}

func startContainerd(t *testing.T, binary string) *store {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size=128m,mode=0700"))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	config := write(t, filepath.Join(root, "config.toml"), "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
	socket := filepath.Join(root, "c.sock")
	cmd := exec.Command(binary, "--config", config, "--root", filepath.Join(root, "root"), "--state", filepath.Join(root, "state"), "--address", socket)
	log, err := os.Create(filepath.Join(root, "log"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	var client *containerd.Client
	require.Eventually(t, func() bool {
		client, err = containerd.New(socket, containerd.WithDefaultNamespace("careen"), containerd.WithTimeout(time.Second))
		return err == nil
	}, 20*time.Second, 100*time.Millisecond, "containerd does not answer")
	t.Cleanup(func() { _ = client.Close() })
	return &store{client: client, root: root, ctx: namespaces.WithNamespace(t.Context(), "careen")}
}
