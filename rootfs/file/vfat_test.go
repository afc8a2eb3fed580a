package file_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/rootfs/file/filetest"
)

// The EFI system partition is vfat, which has no permissions to set.
func TestReplaceOnVFAT(t *testing.T) {
	dir := filetest.Mount(t, "vfat", 4<<20)
	for _, d := range durabilities {
		require.NoError(t, file.Replace(filepath.Join(dir, "f"), []byte("new"), 0o600, d))
	}
}
