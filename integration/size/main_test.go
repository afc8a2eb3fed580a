package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestModuleOfASymbol(t *testing.T) {
	modules := []string{"example.org/lib/v2", "example.org/main", "example.org/lib"}
	for symbol, want := range map[string]string{
		"main.run":                                    "example.org/main",
		"example.org/main/part.F":                     "example.org/main",
		"example.org/lib.F":                           "example.org/lib",
		"example.org/lib/v2/p.(*T).M":                 "example.org/lib/v2",
		"example.org/library.F":                       "(Go's standard library and runtime)",
		"type:.eq.example.org/lib/v2/p.T":             "example.org/lib/v2",
		"go:itab.*example.org/lib.T,error":            "example.org/lib",
		"net/http.(*Server).Serve":                    "(Go's standard library and runtime)",
		"runtime.pclntab":                             lineTables,
		"seccomp_init":                                cCode,
		"_cgo_0123456789ab_Cfunc_seccomp_export.part": cCode,
	} {
		assert.Equal(t, want, moduleOf(symbol, "example.org/main", modules), symbol)
	}
}

// TestReport makes the table of a binary with symbols: this program.
func TestReport(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "size")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	var table bytes.Buffer
	require.NoError(t, run(&table, binary, binary, 0, ""))
	assert.Contains(t, table.String(), "(Go's standard library and runtime)")
	assert.Contains(t, table.String(), "github.com/careen-project/careen")
	assert.Contains(t, table.String(), "100.0%")

	require.NoError(t, exec.Command("go", "build", "-ldflags", "-s -w", "-o", binary, ".").Run())
	assert.ErrorContains(t, run(&table, binary, binary, 0, ""), "has no symbols")
	assert.Error(t, run(&table, os.DevNull, binary, 0, ""))
}

func TestLimitAndChange(t *testing.T) {
	recorded := filepath.Join(t.TempDir(), "size.txt")
	require.NoError(t, os.WriteFile(recorded, []byte("# VERSION BYTES\nv1 100\nv2 200\n"), 0o600))
	var out bytes.Buffer
	require.NoError(t, summary(&out, "bin/careen", 150, 150, recorded))
	assert.Equal(t, "bin/careen: 150 bytes gzipped, -50 since v2 (200), limit 150\n", out.String())
	assert.ErrorContains(t, summary(&out, "bin/careen", 151, 150, recorded), "1 bytes over its limit")

	require.NoError(t, os.WriteFile(recorded, []byte("v1 many\n"), 0o600))
	assert.ErrorContains(t, summary(&out, "bin/careen", 1, 0, recorded), "size.txt")
	require.NoError(t, os.WriteFile(recorded, []byte("# nothing\n"), 0o600))
	assert.ErrorContains(t, summary(&out, "bin/careen", 1, 0, recorded), "has no release")
}
