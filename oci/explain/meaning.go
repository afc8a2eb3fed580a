package explain

import (
	"encoding/csv"
	"fmt"
	"strings"

	"github.com/careen-project/careen/oci"
)

// meaning describes one use of an option, with its value where that matters.
func meaning(use oci.Given) string {
	if use.Option.Kind == oci.Bool && use.Value != "true" {
		return "off: " + use.Option.Help
	}
	name, value, hasValue := strings.Cut(use.Value, "=")
	switch use.Option.Name {
	case "network", "pid", "ipc", "uts", "cgroupns":
		return namespaceMeaning(use)
	case "security-opt":
		return securityMeaning(use.Value)
	case "env":
		switch {
		case hasValue:
			return "sets the variable " + name
		case strings.HasSuffix(name, "*"):
			return "copies all variables of the caller that start with " + strings.TrimSuffix(name, "*")
		}
		return "copies the variable " + name + " from the caller"
	case "volume":
		return volumeMeaning(use.Value)
	case "mount":
		return mountMeaning(use.Value)
	case "tmpfs":
		path, options, _ := strings.Cut(use.Value, ":")
		return fmt.Sprintf("mounts a tmpfs at %s%s", path, inBrackets(options))
	case "cap-add":
		return "adds the capability " + use.Value + " and allows its system calls"
	case "cap-drop":
		return "drops the capability " + use.Value + "; no effect with --privileged"
	case "sysctl", "ulimit", "annotation":
		if hasValue {
			return fmt.Sprintf("sets %s to %s", name, value)
		}
	case "device":
		return deviceMeaning(use.Value)
	}
	return use.Option.Help
}

func inBrackets(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// spaces are the resources that a namespace isolates.
var spaces = map[string]string{
	"network": "network", "pid": "process list", "ipc": "IPC (shared memory, message queues)", "uts": "host name", "cgroupns": "view of cgroups",
}

func namespaceMeaning(use oci.Given) string {
	what := spaces[use.Option.Name]
	path, isPath := strings.CutPrefix(use.Value, "ns:")
	switch {
	case use.Value == "host":
		return fmt.Sprintf("shares the node's %s", what)
	case use.Value == "none" && use.Option.Name == "network":
		return "the container has only a loopback network"
	case use.Value == "none":
		return "the container has private " + what + " and no /dev/shm"
	case isPath:
		return fmt.Sprintf("uses the %s of the namespace %s", what, path)
	}
	return fmt.Sprintf("the container has a private %s", what)
}

func securityMeaning(text string) string {
	separator := "="
	if !strings.Contains(text, "=") {
		separator = ":"
	}
	name, value, _ := strings.Cut(text, separator)
	switch name {
	case "no-new-privileges":
		return "programs gain no privileges by set-user-ID or file capabilities"
	case "seccomp":
		if value == "unconfined" {
			return "no seccomp filter"
		}
		return "uses the seccomp filter in the file " + value
	case "mask":
		return "masks " + strings.ReplaceAll(value, ":", " and ")
	case "unmask":
		return "unmasks " + strings.ReplaceAll(value, ":", " and ")
	case "systempaths":
		return "unmasks all paths that are masked or read-only by default"
	case "proc-opts":
		return "mounts /proc with " + value
	case "apparmor":
		return "uses the AppArmor profile " + value
	}
	return "no effect: careen does not set SELinux labels"
}

func volumeMeaning(text string) string {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) == 1 {
		return "mounts a new empty directory at " + text
	}
	options := ""
	if len(parts) == 3 {
		options = parts[2]
	}
	what := "the volume " + parts[0] + " of the store"
	if strings.HasPrefix(parts[0], "/") || strings.HasPrefix(parts[0], ".") {
		what = "the node's " + parts[0]
	}
	var notes []string
	for _, option := range strings.Split(options, ",") {
		switch option {
		case "":
		case "ro":
			notes = append(notes, "read-only")
		case "O":
			notes = append(notes, "changes are discarded after the run")
		case "U":
			notes = append(notes, "its owner is changed to the container's user")
		default:
			notes = append(notes, option)
		}
	}
	return fmt.Sprintf("mounts %s at %s%s", what, parts[1], inBrackets(strings.Join(notes, ", ")))
}

func mountMeaning(text string) string {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return "a mount"
	}
	var kind, source, destination string
	var notes []string
	for _, field := range fields {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "type":
			kind = value
		case "src", "source":
			source = value
		case "dst", "destination", "target":
			destination = value
		default:
			notes = append(notes, field)
		}
	}
	what := "a file system of type " + kind
	switch {
	case kind == "bind" && source == "":
		what = "the node's " + destination
	case kind == "bind":
		what = "the node's " + source
	case kind == "volume" && source == "":
		what = "a new empty directory"
	case kind == "volume":
		what = "the volume " + source + " of the store"
	}
	return fmt.Sprintf("mounts %s at %s%s", what, destination, inBrackets(strings.Join(notes, ", ")))
}

func deviceMeaning(text string) string {
	parts := strings.Split(text, ":")
	if len(parts) == 1 {
		return "the container can use " + text
	}
	out := "the container can use " + parts[0]
	for _, part := range parts[1:] {
		if strings.Trim(part, "rwm") == "" {
			out += " (" + part + ")"
		} else {
			out += " as " + part
		}
	}
	return out
}
