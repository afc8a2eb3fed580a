package integration

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/careen-project/careen/"

// layers says which packages of careen's a package may import: the arrows of
// docs/architecture.md. A prefix stands for the packages below it too.
var layers = map[string][]string{
	"agent/fault":      {},
	"agent/api":        {},
	"agent/journal":    {"agent/fault"},
	"agent/client":     {"agent/api", "agent/fault"},
	"agent":            {"agent/api", "agent/fault", "agent/journal", "agent/beacon", "steps", "oci", "runtime/logs", "runtime/pull/polite"},
	"steps":            {"agent/api", "agent/fault"},
	"oci":              {"agent/fault"},
	"rootfs":           {"agent/fault", "agent/api", "oci", "rootfs/"},
	"runtime/logs":     {},
	"runtime/initproc": {},
	"runtime/filter":   {},
	"runtime/reexec":   {"runtime/filter"},
	"runtime/shim":     {"runtime/filter", "runtime/logs"},
	"runtime/pull":     {"agent/fault", "agent/api", "oci", "runtime/pull/"},
	"runtime":          {"agent/fault", "oci", "rootfs", "runtime/"},
}

func TestImportsFlowOneWay(t *testing.T) {
	for pkg, allowed := range layers {
		t.Run(pkg, func(t *testing.T) {
			out, err := exec.Command("go", "list", "-tags", "seccomp netgo osusergo", "-f",
				`{{join .Imports "\n"}}`, module+pkg).CombinedOutput()
			require.NoError(t, err, string(out))
			for imported := range strings.FieldsSeq(string(out)) {
				name, ours := strings.CutPrefix(imported, module)
				if ours && !permitted(name, allowed) {
					t.Errorf("%s imports %s, which lies before it; it may import %v", pkg, name, allowed)
				}
			}
		})
	}
}

func permitted(name string, allowed []string) bool {
	for _, a := range allowed {
		if name == a || strings.HasSuffix(a, "/") && strings.HasPrefix(name, a) {
			return true
		}
	}
	return false
}
