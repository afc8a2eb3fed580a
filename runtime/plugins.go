package runtime

// The containerd plugins that careen embeds: this list is the whole of it, and
// every line says what would not work without it. Each import registers itself
// with containerd's plugin registry, so a package that is not named here adds
// nothing to the binary and nothing to the start of the agent.
import (
	// Stores: blobs, and the bolt database that knows images, containers,
	// snapshots and leases by namespace.
	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin"
	_ "github.com/containerd/containerd/v2/plugins/metadata"

	// Snapshots: overlayfs on every kernel that has it, native where the node
	// lacks it (each layer a full copy, which careen says when it happens).
	_ "github.com/containerd/containerd/v2/plugins/snapshots/native/plugin"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/overlay/plugin"

	// Leases keep a pull's content alive until its image exists. For what removes
	// the rest see [collector].
	_ "github.com/containerd/containerd/v2/plugins/leases"

	// The event exchange, which the stores publish to.
	_ "github.com/containerd/containerd/v2/plugins/events"

	// Diff applies a layer the slow way: for snapshotters other than overlayfs.
	_ "github.com/containerd/containerd/v2/plugins/diff/walking/plugin"

	// The services that a containerd client talks to, in this process.
	_ "github.com/containerd/containerd/v2/plugins/services/containers"
	_ "github.com/containerd/containerd/v2/plugins/services/content"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/services/images"
	_ "github.com/containerd/containerd/v2/plugins/services/namespaces"
	_ "github.com/containerd/containerd/v2/plugins/services/snapshots"
	_ "github.com/containerd/containerd/v2/plugins/services/warning"
)
