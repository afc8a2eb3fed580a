package oci

// Verdict is what careen does with an option of podman or docker.
type Verdict string

// The verdicts.
const (
	// Implement: the option has podman's effect.
	Implement Verdict = "implement"
	// Accept: the value is checked as podman checks it and then ignored, because it
	// has nothing to act on.
	Accept Verdict = "accept"
	// Reject: the option is refused by name, except with a value of Harmless.
	Reject Verdict = "reject"
)

// Kind is how an option's value is read.
type Kind string

// The kinds. List options split each value on commas as CSV and add up; Array
// options add up and are never split; all others keep the last value.
const (
	Bool   Kind = "bool"
	String Kind = "string"
	List   Kind = "list"
	Array  Kind = "array"
	Int    Kind = "int"
	Uint   Kind = "uint"
	Float  Kind = "float"
)

// Group is a heading of the help text and of docs/options.md.
type Group string

// The groups, in the order in which help shows them.
const (
	GroupImage    Group = "Image"
	GroupProcess  Group = "Process"
	GroupEnv      Group = "Environment"
	GroupUser     Group = "User"
	GroupSecurity Group = "Security"
	GroupIsolate  Group = "Namespaces"
	GroupNet      Group = "Network and names"
	GroupMounts   Group = "Mounts"
	GroupDevices  Group = "Devices"
	GroupLimits   Group = "Limits"
	GroupLife     Group = "Life and identity"
	GroupNoOp     Group = "Accepted without effect"
	GroupReject   Group = "Refused"
)

// groupOrder is the order of the groups in help and docs.
var groupOrder = []Group{
	GroupImage, GroupProcess, GroupEnv, GroupUser, GroupSecurity, GroupIsolate, GroupNet,
	GroupMounts, GroupDevices, GroupLimits, GroupLife, GroupNoOp, GroupReject,
}

// Command is a set of careen's commands that have an option.
type Command uint8

// The commands; OnBoth is their union.
const (
	OnRun Command = 1 << iota
	OnPull
	OnBoth = OnRun | OnPull
)

// OptionInfo is one option of podman run or podman pull, or of docker's where
// podman has none: the data for parsing, help and docs/options.md.
type OptionInfo struct {
	// Name is the long name without dashes, Short the letter or "".
	Name, Short string
	// Aliases are other long names that mean the same.
	Aliases []string
	// On says which commands have the option.
	On   Command
	Kind Kind
	// Arg names the value in help, "" for a boolean.
	Arg string
	// Default is the value without the option, as help shows it.
	Default string
	Verdict Verdict
	Group   Group
	// Help is what the option does, as a sentence without a final stop. For a
	// refused option it is the reason.
	Help string
	// Difference is the difference from podman 4.3.1, "" for none.
	Difference string
	// Example is a valid use, for error messages.
	Example string
	// Harmless are values that are accepted although the option is refused.
	Harmless []string
	// Instead says what to use instead of a refused option.
	Instead string
	// Podman is the podman or docker that has the option: "4.3.1", "newer" or
	// "docker".
	Podman string
	// Since is the careen version that added the option.
	Since string
	// Secret marks a value that must not appear in logs.
	Secret bool
}

// Options returns every option that careen knows, implemented or not, sorted
// by group and name. The caller may change the slice.
func Options() []OptionInfo {
	return append([]OptionInfo(nil), optionTable...)
}

// GroupOptions are the options of one heading.
type GroupOptions struct {
	Group   Group
	Options []OptionInfo
}

// HelpGroups returns the options of one command by heading, in the order in which
// help shows them. Options that only docker has are left out.
func HelpGroups(command Command) []GroupOptions {
	var groups []GroupOptions
	for _, group := range groupOrder {
		var options []OptionInfo
		for _, option := range optionTable {
			if option.Group == group && option.On&command != 0 && option.Podman != "docker" {
				options = append(options, option)
			}
		}
		if len(options) > 0 {
			groups = append(groups, GroupOptions{Group: group, Options: options})
		}
	}
	return groups
}

// findOption returns the option of one command by long name or alias.
func findOption(command Command, name string) (OptionInfo, bool) {
	option, ok := optionsByName[command][name]
	return option, ok
}

// findShort returns the option of one command by its letter.
func findShort(command Command, letter string) (OptionInfo, bool) {
	for _, option := range optionTable {
		if option.Short == letter && option.On&command != 0 {
			return option, true
		}
	}
	return OptionInfo{}, false
}

var (
	optionTable   = makeTable()
	optionsByName = indexTable(optionTable)
)

func makeTable() []OptionInfo {
	parts := [][]OptionInfo{
		imageOptions, processOptions, envOptions, userOptions, securityOptions, isolateOptions,
		netOptions, mountOptions, deviceOptions, limitOptions, lifeOptions, noopOptions, rejectedOptions,
	}
	var table []OptionInfo
	for _, group := range groupOrder {
		for _, part := range parts {
			for _, option := range part {
				if option.Group == group {
					table = append(table, withDefaults(option))
				}
			}
		}
	}
	return table
}

// withDefaults fills the fields that are the same for most options.
func withDefaults(option OptionInfo) OptionInfo {
	if option.On == 0 {
		option.On = OnRun
	}
	if option.Kind == "" {
		option.Kind = String
	}
	if option.Verdict == "" {
		option.Verdict = Implement
	}
	if option.Podman == "" {
		option.Podman = "4.3.1"
	}
	if option.Since == "" {
		option.Since = "0.1.0"
	}
	if option.Example == "" && option.Kind == Bool {
		option.Example = "--" + option.Name + "=false"
	}
	return option
}

func indexTable(table []OptionInfo) map[Command]map[string]OptionInfo {
	index := map[Command]map[string]OptionInfo{OnRun: {}, OnPull: {}}
	for _, option := range table {
		for command, names := range index {
			if option.On&command == 0 {
				continue
			}
			names[option.Name] = option
			for _, alias := range option.Aliases {
				names[alias] = option
			}
		}
	}
	return index
}
