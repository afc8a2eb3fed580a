package untar_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// xattrs lists the names of a file's extended attributes.
func xattrs(t testing.TB, path string) []string {
	t.Helper()
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	require.NoError(t, err)
	return strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
}
