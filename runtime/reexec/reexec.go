package reexec

import (
	"os"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	// The C constructor that joins namespaces.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
)

func init() {
	// libcontainer passes its init a pipe; without the pipe "init" is an argument of a
	// command line.
	if len(os.Args) > 1 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "" {
		// The process lives for milliseconds, and collecting garbage would take most of
		// them.
		debug.SetGCPercent(-1)
		resetSignals()
		useProgram()
		libcontainer.Init()
	}
}
