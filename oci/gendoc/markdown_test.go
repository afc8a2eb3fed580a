package gendoc_test

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/oci/gendoc"
)

var update = flag.Bool("update", false, "write docs/options.md")

func TestOptionsDocumentIsCurrent(t *testing.T) {
	const file = "../../docs/options.md"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(gendoc.Markdown()), 0o644))
	}
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(content), gendoc.Markdown(), "docs/options.md is stale: run go generate ./oci/gendoc")
}
