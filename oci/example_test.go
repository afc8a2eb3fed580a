package oci_test

import (
	"fmt"

	"github.com/careen-project/careen/oci"
)

// Options come from Ironic as a string or as a list whose elements hold several
// words; both mean the same.
func ExampleWords() {
	fromString, _ := oci.Words("--rm --network=host")
	fromList, _ := oci.Words([]any{"--rm --network=host"})
	fmt.Println(fromString)
	fmt.Println(fromList)
	// Output:
	// [--rm --network=host]
	// [--rm --network=host]
}

// All that is wrong is reported together.
func ExampleParseRun() {
	_, err := oci.ParseRun([]string{"--memory=lots", "--rm", "--pod", "p", "-z", "tool"}, oci.Caller{})
	for _, e := range err.(oci.Errors) {
		fmt.Println(e)
		fmt.Println("  ", e.Remedy)
	}
	fmt.Println("exit code", oci.ExitCode(err))
	// Output:
	// cannot accept option --pod p: there are no pods on a node that runs one step
	//    Leave it out
	// cannot accept option -z: there is no option -z
	//    See careen run --help
	// cannot accept option --memory=lots: "lots" is not a size
	//    Write it like --memory=512m
	// exit code 125
}

// A name is completed as docker completes it.
func ExampleParseReference() {
	for _, text := range []string{"busybox", "docker://quay.io/tools/fw:2", "oci:/opt/images/fw:2"} {
		ref, _ := oci.ParseReference(text)
		fmt.Println(ref.Transport, ref.Name+ref.Path, ref.Tag)
	}
	// Output:
	// docker docker.io/library/busybox:latest latest
	// docker quay.io/tools/fw:2 2
	// oci /opt/images/fw 2
}

// Build needs no more than the image's configuration and what the node offers.
func ExampleRun_Build() {
	run, err := oci.ParseRun([]string{"--read-only", "--cap-drop=ALL", "-e", "LEVEL=2", "tool", "--update"}, oci.Caller{})
	if err != nil {
		fmt.Println(err)
		return
	}
	in := oci.BuildInput{ID: containerID, Node: testNode(true), Dir: "/run/careen/runs/x", RootFS: "rootfs"}
	in.Image.Config.Config.Entrypoint = []string{"/bin/tool"}
	plan, err := run.Build(in)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(plan.Spec.Process.Args, plan.Spec.Root.Readonly, plan.Spec.Process.Capabilities.Bounding)
	// Output:
	// [/bin/tool --update] true []
}

// Explain shows what options change before they run.
func ExampleExplain() {
	run, _ := oci.ParseRun([]string{"--memory=512m", "--pid=host", "--rm", "tool"}, oci.Caller{})
	in := oci.BuildInput{ID: containerID, Node: testNode(true), Dir: "/run/careen/runs/x"}
	in.Image.Config.Config.Cmd = []string{"/bin/tool"}
	plan, _ := run.Build(in)
	base, _ := run.Baseline().Build(in)
	fmt.Print(oci.Explain(run, plan, base))
	// Output:
	// Warnings:
	//   --pid=host: the container sees all processes of the node and may signal them
	//
	// What each option does:
	//   --pid=host: the container has the node's processes
	//   --memory=512m: memory limit; sets memory and swap together to twice that
	//   --rm has no effect: always so: a step leaves nothing behind
	//
	// Changed against careen's default for this image (+ added, - gone, ~ changed):
	//   - namespace pid: the container's own
	//   + resource memory limit: 512MiB
	//   + resource memory swap: 1GiB
}
