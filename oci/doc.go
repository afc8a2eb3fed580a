// Package oci gives podman's run and pull options their meaning: words in, typed options
// and a runtime-spec out.
//
// The flow has three steps, each of them pure:
//
//	words ──ParseRun──► Run ──Check──► (limits of the node) ──Build──► Plan
//
// [ParseRun] and [ParsePull] read words as podman's command line does, refuse by name what
// careen does not support, and report all problems together; [Run.Check] checks what
// depends on the node; [Run.Build] makes the runtime-spec and lists everything that has to
// be created before it can run.
//
// podman 4.3.1, as Debian 12 configures it, is the reference for every option, down to the
// spec. Intended differences are in the option's entry in [Options] and in docs/options.md,
// which package oci/gendoc makes from it.
//
// The package does no I/O: it reads the node through [Host] and the image through [Files],
// and writes no file. Package runtime pulls, mounts and starts, from the [Plan]. Package
// steps decides who may run what, and splits Ironic's options into words.
package oci
