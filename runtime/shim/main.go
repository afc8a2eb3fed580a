package shim

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	shimapi "github.com/containerd/containerd/api/runtime/task/v3"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ctrdshim "github.com/containerd/containerd/v2/pkg/shim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Name is the file name under which the binary acts as a shim. containerd is
// given an absolute path that ends in it.
const Name = "containerd-shim-careen-v1"

// invocation is what containerd passes to a shim, flags and environment together.
type invocation struct {
	namespace, id, address, ttrpcAddress, bundle, socket, action string
	info, version, lifeline                                      bool
}

// Main runs the shim binary protocol of containerd's runtime v2 (its
// documentation: core/runtime/v2/README.md): "start" spawns the process that
// serves and prints its address, "delete" cleans up after one that died, and no
// action at all serves. It returns the process's exit code.
func Main(args []string) int {
	inv, err := parseInvocation(args)
	if err == nil {
		err = inv.run()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Name, err)
		return 1
	}
	return 0
}

func parseInvocation(args []string) (invocation, error) {
	var (
		inv    invocation
		unused string
		debug  bool
	)
	set := flag.NewFlagSet(Name, flag.ContinueOnError)
	set.StringVar(&inv.namespace, "namespace", "", "containerd namespace of the task")
	set.StringVar(&inv.id, "id", "", "id of the task")
	set.StringVar(&inv.address, "address", "", "containerd's gRPC address")
	set.StringVar(&inv.bundle, "bundle", "", "bundle directory, for delete")
	set.StringVar(&inv.socket, "socket", "", "address to serve on (set by start)")
	set.BoolVar(&inv.lifeline, "lifeline", false, "end with the process that started this one, until there is a container (set by the agent)")
	set.StringVar(&unused, "publish-binary", "", "ignored: events go over ttrpc")
	set.BoolVar(&debug, "debug", false, "ignored")
	set.BoolVar(&inv.info, "info", false, "print what the runtime supports")
	set.BoolVar(&inv.version, "v", false, "print the version")
	if err := set.Parse(args); err != nil {
		return inv, err
	}
	inv.action = set.Arg(0)
	inv.ttrpcAddress = os.Getenv("TTRPC_ADDRESS")
	return inv, nil
}

func (inv invocation) run() error {
	if inv.version {
		fmt.Println(Name)
		return nil
	}
	if inv.info {
		return printInfo()
	}
	// An agent with an embedded containerd names the container when it creates it.
	if inv.namespace == "" || inv.id == "" && !inv.lifeline {
		return errors.New("-namespace and -id are required: only containerd and careen's agent start this program")
	}
	ctx := namespaces.WithNamespace(context.Background(), inv.namespace)
	switch inv.action {
	case "start":
		return inv.start(ctx)
	case "delete":
		return inv.delete()
	case "":
		return inv.serve(ctx)
	default:
		return fmt.Errorf("unknown action %q", inv.action)
	}
}

// printInfo prints the runtime's name. containerd asks for it once per runtime, before the
// first task.
func printInfo() error {
	data, err := proto.Marshal(&apitypes.RuntimeInfo{Name: Name})
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(data)
	return err
}

// start makes the socket, spawns the serving process with it and prints where
// it listens, as JSON, which containerd 1.7 and 2.x read.
func (inv invocation) start(ctx context.Context) error {
	address, version, err := inv.bootstrap(ctx)
	if err != nil {
		return err
	}
	listener, err := ctrdshim.NewSocket(address)
	if ctrdshim.SocketEaddrinuse(err) {
		// A killed shim left the socket: containerd starts one shim per task id.
		if ctrdshim.CanConnect(address) {
			return fmt.Errorf("a shim for task %s is alive already", inv.id)
		}
		if err := ctrdshim.RemoveSocket(address); err != nil {
			return fmt.Errorf("cannot remove stale socket %s: %w", address, err)
		}
		listener, err = ctrdshim.NewSocket(address)
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	file, err := listener.File()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd, err := inv.spawn(self, address, file)
	if err != nil {
		_ = ctrdshim.RemoveSocket(address)
		return err
	}
	if err := cmd.Process.Release(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"version": version, "address": address, "protocol": "ttrpc",
	})
}

// bootstrap returns the address of this task's shim, and the version of the task service.
// containerd 2.3 and later send bootstrap parameters with the directory, and know version 3.
// Older ones get a socket in containerd's default place, and version 2.
func (inv invocation) bootstrap(ctx context.Context) (address string, version int, err error) {
	input, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
	if err != nil {
		return "", 0, err
	}
	var params bootapi.BootstrapParams
	if err := proto.Unmarshal(input, &params); err != nil || params.GetInstanceID() != inv.id {
		address, err := ctrdshim.SocketAddress(ctx, inv.address, inv.id, false)
		return address, 2, err
	}
	if params.GetSocketDir() == "" {
		address, err = ctrdshim.SocketAddress(ctx, inv.address, inv.id, false)
	} else {
		address, err = ctrdshim.CreateSocketAddress(ctx, params.GetSocketDir(), inv.address, inv.id, false)
	}
	return address, 3, err
}

// delete cleans up after a shim that died. It removes what is left of the container, and
// records that its end is unknown (lost).
func (inv invocation) delete() error {
	bundle := inv.bundle
	if bundle == "" {
		var err error
		if bundle, err = os.Getwd(); err != nil {
			return err
		}
	}
	socket := SocketOf(bundle)
	exit, err := CleanUp(bundle, inv.id)
	if err = errors.Join(err, RemoveDeadSocket(socket)); err != nil {
		return err
	}
	data, err := proto.Marshal(&shimapi.DeleteResponse{
		ExitStatus: uint32(exit.Code),
		ExitedAt:   timestamppb.New(exit.ExitedAt),
	})
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(data)
	return err
}
