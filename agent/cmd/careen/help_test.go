package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/cli"
)

// commandLine runs careen's command line where no agent is.
func commandLine(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("CAREEN_SOCKET", filepath.Join(t.TempDir(), "none"))
	errs, err := os.CreateTemp(t.TempDir(), "stderr")
	require.NoError(t, err)
	defer errs.Close()
	a := &app{console: &cli.Console{In: os.Stdin, Out: errs, Err: errs}}
	var out bytes.Buffer
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&bytes.Buffer{})
	cmd, err := root.ExecuteContextC(t.Context())
	code = a.exit(cmd, err)
	text, err := os.ReadFile(errs.Name())
	require.NoError(t, err)
	return code, out.String(), string(text)
}

// TestHelpOfEveryCommand has examples, and fits a terminal of 80 columns.
func TestHelpOfEveryCommand(t *testing.T) {
	var walk func(cmd *cobra.Command, path ...string)
	walk = func(cmd *cobra.Command, path ...string) {
		for _, sub := range cmd.Commands() {
			if name := sub.Name(); name != "completion" && name != "help" {
				walk(sub, append(path[:len(path):len(path)], name)...)
			}
		}
		code, text, _ := commandLine(t, append([]string{"help"}, path...)...)
		assert.Zero(t, code)
		if !cmd.HasSubCommands() {
			assert.Contains(t, text, "\nExamples:\n  careen "+strings.Join(path, " "), "%v", path)
		}
		assert.NotContains(t, text, "`", "the placeholder of a value is not part of the text")
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "  careen ") {
				continue // an example stays on its line, to be copied
			}
			assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, "%v: %s", path, line)
		}
	}
	text := commandHelp("agent")
	assert.Contains(t, text, "      --state=DIR         directory for journal")
	assert.Contains(t, text, "      --stop-on-exit      end containers")
	assert.Contains(t, text, "[10s]\n")
	assert.NotContains(t, text, "beacon")
	assert.Contains(t, commandHelp("spec"), "      --image-config=FILE")
	walk((&app{console: cli.NewConsole()}).rootCommand())
	for _, name := range []string{"run", "spec", "explain"} {
		text := commandHelp(name)
		assert.Contains(t, text, "careen "+name+" ")
		assert.Contains(t, text, "--network=host|none|ns:PATH", "podman's options")
		assert.Contains(t, text, "\nExamples:\n")
	}
	assert.Contains(t, commandHelp("pull"), "--policy=")
}

// TestMisuse is answered with 125, what is wrong, and how it is written.
func TestMisuse(t *testing.T) {
	for _, c := range []struct {
		line         string
		wrong, right string
	}{
		{"frob", `unknown command "frob"`, "careen --help"},
		{"inspekt", "did you mean inspect?", "careen --help"},
		{"stop RUN", "did you mean abort or step?", "careen --help"},
		{"step lst", "did you mean list?", "careen step --help"},
		{"step frob", `unknown command "frob"`, "careen step --help"},
		{"ramdisk frob", `unknown command "frob"`, "careen ramdisk --help"},
		{"completion frob", `unknown command "frob"`, "careen completion --help"},
		{"ps --frob", "unknown flag: --frob", "careen ps --help"},
		{"inspect", "accepts 1 arg(s), received 0", "careen inspect RUN"},
		{"agent --queue=x", "--queue", "careen agent --help"},
		{"agent --store-size=x", "--store-size=x", "--store-size=8g"},
		{"step run x --args [", "--args", "JSON object"},
		{"ps --output=xml", "--output=xml", "--output=json"},
		{"run --frob image", "--frob", ""},
		{"wait RUN", "cannot reach the agent", "careen agent"}, // 1 would be the container's code
	} {
		code, _, stderr := commandLine(t, strings.Fields(c.line)...)
		assert.Equal(t, cli.ExitUsage, code, c.line)
		assert.Contains(t, stderr, c.wrong, c.line)
		assert.Contains(t, stderr, c.right, c.line)
	}
	code, _, _ := commandLine(t, "inspect", "RUN")
	assert.Equal(t, cli.ExitFailed, code)
}

func TestCompletion(t *testing.T) {
	for _, c := range []struct {
		line, want string
		not        string
	}{
		{"run|--netw", "--network\t", "--memory"},
		{"run|--network=", "--network=host\n--network=none\n", "PATH"},
		{"run|--rm|--network|h", "host\n", "none"},
		{"run|--rm|-t|-", "--read-only\t", "--pod\t"},
		{"run|--tls-verify=", "--tls-verify=false\n", ""},
		{"run|image|--re", ":0\n", "--read-only"},
		{"run|-v|/dev:/dev|image|--re", ":0\n", "--read-only"},
		{"pull|--po", "--policy\t", "--network"},
		{"spec|--cg", "--cgroup\t", ""},
		{"logs|--stream|", "stdout\nstderr\n", ""},
		{"step|list|--phase|", "clean\ndeploy\nservice\n", ""},
		{"ps|-o|", "text\njson\n", ""},
	} {
		_, stdout, _ := commandLine(t, append([]string{"__complete"}, strings.Split(c.line, "|")...)...)
		assert.Contains(t, stdout, c.want, c.line)
		if c.not != "" {
			assert.NotContains(t, stdout, c.not, c.line)
		}
	}
}

func TestVersionFlag(t *testing.T) {
	code, stdout, _ := commandLine(t, "--version")
	assert.Zero(t, code)
	assert.Contains(t, stdout, "careen version ")
}

// TestFormerNameOfRebootMarker: service files with --beacon still work.
func TestFormerNameOfRebootMarker(t *testing.T) {
	flags := (&app{console: cli.NewConsole()}).agentCommand().Flags()
	require.NoError(t, flags.Set("beacon", "efivar"))
	assert.Equal(t, "efivar", flags.Lookup("reboot-marker").Value.String())
	assert.NotContains(t, flags.FlagUsages(), "beacon")
}
