package agenttest_test

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/runtime/container/containertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run is a container that does what a script says.
func run(script string) *oci.Run { return &oci.Run{Image: oci.Reference{Original: script}} }

// subject is a fake engine, and reopen the next engine over the same containers.
func subject(engine, next containertest.Engine) containertest.Subject {
	return containertest.Subject{
		Engine:  engine,
		Reopen:  func(*testing.T) containertest.Engine { return next },
		Exiting: func(code int) *oci.Run { return run(fmt.Sprintf("exit=%d", code)) },
		Endless: func() *oci.Run { return run("run=forever") },
	}
}

func TestTheRunnerPassesTheSuite(t *testing.T) {
	containertest.Run(t, func(*testing.T) containertest.Subject {
		r := agenttest.NewRunner()
		s := subject(r, r)
		s.Echo = func() *oci.Run { return run("run=forever/echo=") }
		return s
	})
}

func TestTheDiskRunnerPassesTheSuite(t *testing.T) {
	containertest.Run(t, func(t *testing.T) containertest.Subject {
		dir := t.TempDir()
		return subject(&agenttest.DiskRunner{Dir: dir}, &agenttest.DiskRunner{Dir: dir})
	})
}
