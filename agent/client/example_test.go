package client_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sirupsen/logrus"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
)

// startAgent starts an agent on fakes, in place of "careen agent".
func startAgent() (socket string, stop func()) {
	dir, err := os.MkdirTemp("", "careen")
	check(err)
	log := logrus.New()
	log.SetOutput(io.Discard)
	a, err := agent.New(agent.Config{Config: exec.Config{Runner: agenttest.NewRunner(), Log: log,
		RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")}, Resolver: &agenttest.Resolver{}})
	check(err)
	check(a.Recover(context.Background()))
	socket = filepath.Join(dir, "s")
	ln, err := httpd.Listen(socket, os.Getuid())
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, ln) }()
	return socket, func() {
		cancel()
		check(<-done)
		check(a.Close())
		check(os.RemoveAll(dir))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// Submit a run, follow its output and read its outcome. The id makes it safe to repeat the
// request: the same id is the same run.
func Example() {
	socket, stop := startAgent()
	defer stop()

	ctx := context.Background()
	c := client.New(socket)
	defer c.Close()
	run, isNew, err := c.Submit(ctx, api.RunRequest{
		ID: "clean-0042", Image: "out=wiping/out=done/run=1ms/exit=3", // a fake image: its name says what it does
	})
	check(err)
	fmt.Println("new:", isNew)

	check(c.Logs(ctx, run.ID, client.LogOptions{Follow: true}, func(l api.LogLine, text []byte) error {
		fmt.Printf("%s: %s\n", l.Stream, text)
		return nil
	}))
	run, err = c.Wait(ctx, run.ID)
	check(err)
	fmt.Println(run.State, *run.Outcome.ExitCode, run.Outcome.LogTail)
	err = client.OutcomeError(run)
	fmt.Println(fault.CodeOf(err), fault.RemedyOf(err))
	// Output:
	// new: true
	// stdout: wiping
	// stdout: done
	// failed 3 [wiping done]
	// exit Read its output for the reason; the program defines what the code means
}

// What the agent refuses is a *fault.Error with a stable code.
func ExampleClient_Submit_refused() {
	socket, stop := startAgent()
	defer stop()
	c := client.New(socket)
	defer c.Close()
	_, _, err := c.Submit(context.Background(), api.RunRequest{Image: "x", Timeout: "soon"})
	fmt.Println(fault.CodeOf(err))
	fmt.Println(err)
	// Output:
	// bad_request
	// cannot read timeout: "soon" is not a duration greater than zero, such as 90s or 1h30m
}
