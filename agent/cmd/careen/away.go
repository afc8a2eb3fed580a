package main

import (
	"context"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// agentAway bounds how long a command that shows a run waits for an agent that has
// gone: the init restarts it within seconds, and its container goes on meanwhile.
const agentAway = 60 * time.Second

// patiently calls f, and once more each time that the agent was away and is back.
// Ironic's agent takes the end of podman for the end of the step.
func (a *app) patiently(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || ctx.Err() != nil || fault.CodeOf(err) != fault.Unreachable || !a.comesBack(ctx) {
			return err
		}
	}
}

// comesBack waits until an agent listens.
func (a *app) comesBack(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, agentAway)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			if alive(a.socket) {
				return true
			}
		}
	}
}
