package oci_test

import (
	"errors"
	"fmt"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
)

// All that is wrong is reported together.
func ExampleParseRun() {
	_, err := oci.ParseRun([]string{"--memory=lots", "--rm", "--pod", "p", "-z", "tool"}, oci.Caller{})
	var all oci.Errors
	errors.As(err, &all)
	for _, e := range all {
		fmt.Println(e)
		fmt.Println("  ", e.Remedy)
	}
	fmt.Println("exit code", oci.ExitCode(err))
	// Output:
	// cannot accept option --pod p: there are no pods on a node that runs one step
	//    Leave it out
	// cannot accept option -z: the option -z does not exist
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
	in := oci.BuildInput{ID: containerID, Node: conformance.Node(true), Dir: "/run/careen/runs/x", RootFS: "rootfs"}
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
