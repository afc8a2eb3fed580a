// Command realagent is careen's agent as the Python plugin's tests need it: the
// real socket, journal, state machine, steps file, policy and option parser, over
// containers that are lines of text.
//
//	realagent SOCKET DIRECTORY
//
// What an image does is in DIRECTORY/scripts.json, by the last part of its name
// without tag, in the words of package agenttest: {"tool": "out=hello/exit=3"}. The
// agent keeps its state in DIRECTORY and ends when its standard input does.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/steps"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: realagent SOCKET DIRECTORY")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(socket, dir string) error {
	// An empty file, so that nothing of the machine that tests is read.
	file := filepath.Join(dir, "careen.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	cfg, warnings, err := steps.Load(steps.LoadOptions{IPA: []string{}, File: file})
	if err != nil {
		return err
	}
	runner := agenttest.NewRunner()
	runner.Script = func(image string) (agenttest.Script, error) { return script(dir, image) }
	a, err := agent.New(agent.Config{
		Config: exec.Config{
			Runner: runner, RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), Persistent: true,
		},
		Resolver: policy.New(policy.Config{
			Steps: cfg, Warnings: warnings, Host: rootfs.Host(), ConductorFile: filepath.Join(dir, "conductor.json"),
		}),
		Version: api.Version{Version: "test", APIVersion: "v1"},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := a.Recover(ctx); err != nil {
		return err
	}
	ln, err := httpd.Listen(socket, 0)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := a.Serve(ctx, ln); err != nil {
		return err
	}
	return a.Close()
}

// script returns what image does; one that scripts.json does not name succeeds.
func script(dir, image string) (agenttest.Script, error) {
	data, err := os.ReadFile(filepath.Join(dir, "scripts.json"))
	if err != nil {
		return agenttest.Script{}, err
	}
	var scripts map[string]string
	if err := json.Unmarshal(data, &scripts); err != nil {
		return agenttest.Script{}, err
	}
	name, _, _ := strings.Cut(path.Base(image), ":")
	return agenttest.ParseScript(scripts[name])
}
