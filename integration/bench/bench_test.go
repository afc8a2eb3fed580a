package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestImagesAreTheSameEveryTime: figures of two machines are about the same bytes.
func TestImagesAreTheSameEveryTime(t *testing.T) {
	for _, format := range []string{"", "zstd", "none"} {
		s := shape{Name: "x", Layers: 2, Files: 40, Bytes: 1 << 20, Format: format}
		a, b := t.TempDir(), t.TempDir()
		require.NoError(t, generate(a, s))
		require.NoError(t, generate(b, s))
		first, err := top(a)
		require.NoError(t, err)
		second, err := top(b)
		require.NoError(t, err)
		require.Equal(t, first.Digest, second.Digest)
	}
}

// TestImagesShareLayers: of two images with layers of their own the others are the
// same blobs.
func TestImagesShareLayers(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	require.NoError(t, generate(a, shape{Layers: 2, Files: 40, Bytes: 1 << 20, Own: 1}))
	require.NoError(t, generate(b, shape{Layers: 2, Files: 40, Bytes: 1 << 20, Own: 2}))
	first, err := layersOf(a)
	require.NoError(t, err)
	second, err := layersOf(b)
	require.NoError(t, err)
	require.Len(t, first, 3)
	for i := range first {
		require.Equal(t, i < 2, filepath.Base(first[i]) == filepath.Base(second[i]), "layer %d", i)
	}
}

// TestExitZero runs the program that the images contain.
func TestExitZero(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		require.True(t, bytes.HasPrefix(exitZero(arch), []byte("\x7fELF")))
	}
	file := filepath.Join(t.TempDir(), "true")
	require.NoError(t, os.WriteFile(file, exitZero(runtime.GOARCH), 0o755))
	require.NoError(t, exec.Command(file).Run())
}

func TestTable(t *testing.T) {
	b := &table{}
	b.add(line{What: "x", Unit: "s", Careen: []float64{1, 2, 3}, Other: []float64{10, 4, 30}, With: "other", Limit: 0.15})
	require.InDelta(t, 0.1, b.Lines[0].Ratio, 1e-9, "the median of the rounds' ratios")
	require.True(t, *b.Lines[0].Met)
	b.add(line{What: "y", Unit: "ms", Careen: []float64{60}, Limit: 50})
	require.False(t, *b.Lines[1].Met)
	var out bytes.Buffer
	b.markdown(&out)
	require.Contains(t, out.String(), "≤ 50 ms")
}

func TestDocument(t *testing.T) {
	file := filepath.Join(t.TempDir(), "d.md")
	r := &results{Machine: "2 x this", Table: &table{}}
	require.NoError(t, os.WriteFile(file, []byte("before\n"+tableBegin+"old\n"+tableEnd+"after\n"), 0o644))
	require.NoError(t, r.document(file))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NotContains(t, string(text), "old")
	require.Regexp(t, `(?s)^before\n.*2 x this.*after\n$`, string(text))
	require.NoError(t, os.WriteFile(file, []byte("no place"), 0o644))
	require.Error(t, r.document(file))
}

func TestCurves(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.svg")
	require.NoError(t, drawCurves(file, []curve{{Name: "layers", Unit: "layers", Points: []point{{1, 0.1}, {4, 0.2}, {64, 1}}}}))
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	for d := xml.NewDecoder(f); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else {
			require.NoError(t, err)
		}
	}
}
