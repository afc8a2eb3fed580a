// Package node assembles the agent of one node from its parts: it prepares the node,
// locks the agent's directories, reads careen.toml and IPA's files, opens the engine, the
// policy and the agent, and listens on the socket.
//
//   - [Serve] is "careen agent": it runs until its context ends, the node goes down, or a
//     container requests a reboot.
//   - [With] is "careen run" where no agent listens: the agent of one command.
//   - [Doctor] is "careen doctor".
//
// The environment variable CAREEN_FAILPOINT names points at which the process kills
// itself, for tests of recovery.
//
// The package decides nothing about requests and runs; package policy and package exec do.
// It prints nothing but log lines; package cli talks to the user.
package node
