// Package version says what this binary is made of.
package version

import (
	"runtime"
	"runtime/debug"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/careen-project/careen/agent/api"
)

// Version and Commit are set by the linker; see the Makefile.
var (
	Version = "unknown"
	Commit  = ""
)

// APIVersion is the version of the agent's API; it changes when a client has to.
const APIVersion = "v1"

// Get returns careen's version and those of what is built in, as the binary's
// own build information has them.
func Get() api.Version {
	v := api.Version{
		Version: Version, APIVersion: APIVersion, Commit: Commit,
		Containerd: "unknown", Libcontainer: "unknown", Spec: specs.Version,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/containerd/containerd/v2":
			v.Containerd = dep.Version
		case "github.com/opencontainers/runc":
			v.Libcontainer = dep.Version
		}
	}
	return v
}
