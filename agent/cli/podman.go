package cli

import (
	"os"
	"slices"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs"
)

// Caller is this process as options see it: its environment, working directory and files.
func Caller() oci.Caller {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	environ := map[string]string{}
	for _, pair := range os.Environ() {
		if key, value, ok := strings.Cut(pair, "="); ok {
			environ[key] = value
		}
	}
	return oci.Caller{Host: rootfs.Host(), Environ: environ, WorkDir: dir}
}

// PodmanCommand reads a command line of podman. It returns the verb ("" for none) and the
// words of "run" and "pull" as package oci reads them. Errors are bad_option, or
// unsupported for a command that careen cannot replace.
func PodmanCommand(args []string) (verb string, words []string, err error) {
	if args, err = skipGlobals(args); err != nil || len(args) == 0 {
		return "", nil, err
	}
	verb, words = args[0], args[1:]
	switch {
	case verb == "pull":
		words = splitGlued(words, validPull)
	case verb == "run" && isBootc(words):
		return "", nil, &fault.Error{Code: fault.Unsupported, Op: "run", Subject: "bootc install",
			Reason: "it reads the image from podman's own storage, which careen does not have",
			Remedy: "Use a ramdisk with podman for bootc images, or bootc's --source-imgref with an OCI archive"}
	case verb == "run":
		words = splitGlued(words, validRun)
	}
	return verb, words, nil
}

// globals are the options before podman's verb that have no effect on one step. The value
// says whether the option takes a value.
var globals = map[string]bool{
	"--log-level": true, "--cgroup-manager": true, "--events-backend": true, "--conmon": true, "--network-cmd-path": true,
	"--tmpdir": true, "--noout": false, "--syslog": false, "--trace": false,
}

// skipGlobals drops podman's options before the verb. It refuses an option that would
// change where images are or how containers run.
func skipGlobals(args []string) ([]string, error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name, _, hasValue := strings.Cut(args[0], "=")
		if slices.Contains([]string{"--version", "-v", "--help", "-h"}, name) {
			return args, nil
		}
		takesValue, known := globals[name]
		if !known {
			return nil, &fault.Error{Code: fault.Unsupported, Op: "use", Subject: args[0],
				Reason: "careen has no such option before the verb", Remedy: "Leave it out; careen has one store and one runtime"}
		}
		args = args[1:]
		if takesValue && !hasValue {
			if len(args) == 0 {
				return nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: name, Reason: "its value is missing",
					Remedy: "For example: " + name + "=info"}
			}
			args = args[1:]
		}
	}
	return args, nil
}

// splitGlued splits options that arrive as one argument, as older releases of Ironic's
// agent pass them ("--rm --network=host -v /dev:/dev").
//
// A value may contain spaces, so words that are valid as they are stay unchanged. Else the
// words that start with a dash and contain spaces are split, from the left, until all words
// are valid. If they never are, the error must name the wrong option: then only words with
// a space in the option's name are split.
func splitGlued(words []string, valid func([]string) bool) []string {
	if valid(words) {
		return words
	}
	apart, names := []string{}, []string{}
	for i, word := range words {
		fields := strings.Fields(word)
		if len(fields) < 2 || !strings.HasPrefix(word, "-") {
			apart, names = append(apart, word), append(names, word)
			continue
		}
		if apart = append(apart, fields...); valid(slices.Concat(apart, words[i+1:])) {
			return append(apart, words[i+1:]...)
		}
		if name, _, _ := strings.Cut(word, "="); strings.ContainsAny(name, " \t\n") {
			names = append(names, fields...)
		} else {
			names = append(names, word)
		}
	}
	return names
}

func validRun(words []string) bool {
	_, err := oci.ParseRun(words, Caller())
	return err == nil
}

func validPull(words []string) bool {
	_, err := oci.ParsePull(words, Caller())
	return err == nil
}

// isBootc recognises the command by which Ironic's agent installs bootc images.
func isBootc(words []string) bool {
	for i := range words {
		if words[i] == "bootc" && i+1 < len(words) && words[i+1] == "install" {
			return true
		}
	}
	return false
}
