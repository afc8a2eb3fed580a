package image

import (
	"context"
	"fmt"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/netready"
)

// gate returns what waits for the node while the pull's requests fail for its sake.
func (j *job) gate() *netready.Gate {
	return netready.New(j.p.cfg.NetworkWait, j.progress.waits)
}

// again does what is to be done before a request that failed with err is made once
// more: it waits for a node that is not ready, or sets its clock, neither of which is
// a retry, or waits as retry has it. An error is why there is no other try.
func (r *registry) again(ctx context.Context, retry *retrier, err error) error {
	err = r.p.tellSources(err)
	if fault.CodeOf(err) == fault.Clock {
		return r.repairClock(ctx, err)
	}
	if r.gate == nil || ctx.Err() != nil || !retryable(err) {
		return retry.wait(ctx, err)
	}
	waited, missing := r.gate.Wait(ctx, err)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case waited:
		return nil
	case missing != "":
		return &fault.Error{Code: fault.CodeOf(err), Op: "pull image", Subject: r.req.Original, Err: err,
			Reason: fmt.Sprintf("the node was not ready within %s: it waited for %s", r.gate.Limit(), fault.OneLine(missing, 300)),
			Remedy: "Check the node's cable, switch port and DHCP; careen.toml sets how long to wait: [network] wait"}
	}
	return retry.wait(ctx, err)
}
