// Package oci gives podman's run and pull options their meaning: words in, typed
// options, a runtime-spec out.
//
// The flow has three steps, each of them pure:
//
//	words ──ParseRun──► Run ──Check──► (limits of the node) ──Build──► Plan
//
// [Words] turns the three shapes in which Ironic's agent keeps options into words;
// [ParseRun] and [ParsePull] read the words as podman's command line does, refuse
// by name what careen cannot honour, and report all that is wrong together;
// [Run.Check] applies what only the node can decide; [Run.Build] makes the
// runtime-spec and lists all that has to exist before it can run.
//
// podman 4.3.1, as Debian 12 configures it, is the reference for every option,
// down to the spec. Where careen differs on purpose, the option's entry in
// [Options] says so, and so does docs/options.md, which is made from it.
//
// The package touches nothing: it reads the node through [Host], the image
// through [Files], and writes no file. It does not pull, mount or start; package
// runtime does, from the [Plan]. It decides nothing about who may run what;
// package steps does.
package oci
