package runtime

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// settleTime is how long an agent works before what an earlier one left is
// collected.
const settleTime = 10 * time.Second

// collector frees what no image, container or lease refers to any more. It stands
// in for containerd's scheduler of collections, which waits for many changes before
// it collects and brings a library of metrics into the binary. careen knows when
// there is something to collect: what a container, an image or a pull has left, when
// that is removed.
type collector struct{ db *metadata.DB }

// ScheduleAndWait collects; containerd's services call it by that name.
func (c collector) ScheduleAndWait(ctx context.Context) (gc.Stats, error) {
	return c.db.GarbageCollect(ctx)
}

// later collects once the agent has settled.
func (c collector) later(ctx context.Context) {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		if _, err := c.ScheduleAndWait(ctx); err != nil && !errors.Is(err, context.Canceled) {
			log.G(ctx).WithError(err).Warn("the garbage collector did not run; it frees space in the store later")
		}
	}
}

func init() {
	registry.Register(&plugin.Registration{
		Type: plugins.GCPlugin, ID: "scheduler", Requires: []plugin.Type{plugins.MetadataPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			db, err := ic.GetSingle(plugins.MetadataPlugin)
			if err != nil {
				return nil, err
			}
			return collector{db.(*metadata.DB)}, nil
		},
	})
}
