package reexec

import (
	"os"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	// The C constructor that joins namespaces.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
)

func init() {
	// The pipe is what libcontainer passes to its init; without it "init" is a
	// word that somebody typed.
	if len(os.Args) > 1 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "" {
		// It lives for milliseconds: collecting garbage would be most of its work.
		debug.SetGCPercent(-1)
		useFilter()
		libcontainer.Init()
	}
}
