package integration

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/careen-project/careen/"

// layers reads the table of docs/architecture.md: which packages of careen's a package
// may import. A "/*" at the end stands for the packages below.
func layers(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("../docs/architecture.md")
	require.NoError(t, err)
	names := regexp.MustCompile("`([^`]+)`")
	rows := map[string][]string{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		pkg := names.FindStringSubmatch(cells[1])[1]
		rows[pkg] = []string{}
		for _, name := range names.FindAllStringSubmatch(cells[3], -1) {
			rows[pkg] = append(rows[pkg], name[1])
		}
		if strings.TrimSpace(cells[3]) == "all" {
			rows[pkg] = []string{"*"}
		}
	}
	require.NotEmpty(t, rows)
	return rows
}

// TestImportsFlowOneWay: every package of the binary is in the table, and imports what
// its row says.
func TestImportsFlowOneWay(t *testing.T) {
	rows := layers(t)
	out, err := exec.Command("go", "list", "-tags", "seccomp netgo osusergo grpcnotrace runc_nocriu containers_image_openpgp",
		"-f", `{{.ImportPath}} {{join .Imports " "}}`, "../agent/...", "../oci/...", "../rootfs/...", "../runtime/...", "../steps/...").Output()
	require.NoError(t, err)
	listed := map[string]bool{"integration": true} // black box: it has packages of its own
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], module)
		listed[pkg] = true
		switch pkg {
		case "agent/agenttest", "oci/conformance", "oci/gendoc", "rootfs/file/filetest":
			continue // not in the binary
		}
		allowed, ok := rows[pkg]
		if !assert.True(t, ok, "%s is not in the table of docs/architecture.md", pkg) {
			continue
		}
		for _, imported := range words[1:] {
			name, ours := strings.CutPrefix(imported, module)
			if ours && !permitted(name, allowed) {
				t.Errorf("%s imports %s, which lies before it; docs/architecture.md allows %v", pkg, name, allowed)
			}
		}
	}
	for pkg := range rows {
		assert.True(t, listed[pkg], "docs/architecture.md has a package that is not there: %s", pkg)
	}
}

func permitted(name string, allowed []string) bool {
	for _, a := range allowed {
		below, all := strings.CutSuffix(a, "*")
		if name == a || all && strings.HasPrefix(name, below) {
			return true
		}
	}
	return false
}
