package shim

import (
	"context"
	"time"

	eventapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/runtime"
	ctrdshim "github.com/containerd/containerd/v2/pkg/shim"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/careen-project/careen/runtime/container"
)

// NoEvents is the ttrpc address that disables events. The
// embedded containerd uses it: the agent learns of an end from the task itself.
const NoEvents = "none"

// publishTimeout bounds what a shim waits for a containerd that is away.
const publishTimeout = 5 * time.Second

// publisher sends task events to an external containerd, for its subscribers.
type publisher struct {
	remote *ctrdshim.RemoteEventsPublisher
}

func newPublisher(address string) (*publisher, error) {
	if address == "" || address == NoEvents {
		return &publisher{}, nil
	}
	remote, err := ctrdshim.NewPublisher(address)
	if err != nil {
		return nil, err
	}
	return &publisher{remote: remote}, nil
}

func (p *publisher) close() {
	if p.remote != nil {
		_ = p.remote.Close()
	}
}

// send publishes one event. A containerd that cannot be reached must not change
// what happens to the container, so the error is dropped: the publisher queues
// and retries by itself.
func (p *publisher) send(ctx context.Context, topic string, event any) {
	if p.remote == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	_ = p.remote.Publish(ctx, topic, event)
}

func (p *publisher) exited(ctx context.Context, id string, pid int, exit container.Exit) {
	p.send(ctx, runtime.TaskExitEventTopic, &eventapi.TaskExit{
		ContainerID: id, ID: id, Pid: uint32(pid), ExitStatus: uint32(exit.Code),
		ExitedAt: timestamppb.New(exit.ExitedAt),
	})
	if exit.OOMKilled {
		p.send(ctx, runtime.TaskOOMEventTopic, &eventapi.TaskOOM{ContainerID: id})
	}
}
