// Package cli is what careen's commands do in their own process: they talk to the user on
// a [Console], show a run until it ends ([Console.Attach]), complete words for the shell,
// and read podman's command lines.
//
// Text of containers, images and registries is escaped before it is printed, so that it
// cannot control a terminal or forge a line of a table (see [Clean]).
//
// The package starts no agent; package node does. The cobra commands and their flags are
// in agent/cmd/careen.
package cli
