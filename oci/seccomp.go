package oci

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/containers/common/pkg/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Bounds of a seccomp profile, well above podman's own.
const (
	maxSeccompRules = 4096
	maxSeccompNames = 16384
)

// seccompNames maps a GOARCH to libseccomp's name, by which profiles filter.
var seccompNames = map[string]string{
	"386": "x86", "amd64": "amd64", "arm": "arm", "arm64": "arm64", "mips64": "mips64", "mips64le": "mipsel64",
	"ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x",
}

// seccompArches maps libseccomp's name to the architecture in a profile's map.
var seccompArches = map[string]seccomp.Arch{
	"amd64": seccomp.ArchX86_64, "arm64": seccomp.ArchAARCH64, "mips64": seccomp.ArchMIPS64,
	"mipsel64": seccomp.ArchMIPSEL64, "s390x": seccomp.ArchS390X,
}

// parseSeccomp reads and checks a profile in podman's and docker's format.
func parseSeccomp(content []byte) (*seccomp.Seccomp, error) {
	if len(content) > maxFile {
		return nil, fmt.Errorf("the seccomp profile is larger than %d bytes", maxFile)
	}
	var profile seccomp.Seccomp
	if err := json.Unmarshal(content, &profile); err != nil {
		return nil, fmt.Errorf("the seccomp profile is not valid JSON: %w", err)
	}
	if len(profile.Architectures) > 0 && len(profile.ArchMap) > 0 {
		return nil, fmt.Errorf("the seccomp profile has both architectures and archMap")
	}
	if profile.DefaultAction == "" && len(profile.Syscalls) > 0 {
		return nil, fmt.Errorf("the seccomp profile has no defaultAction")
	}
	if profile.DefaultAction != "" && !seccompAction(profile.DefaultAction) {
		return nil, fmt.Errorf("the seccomp profile has no valid defaultAction but %s", quote(string(profile.DefaultAction)))
	}
	if len(profile.Syscalls) > maxSeccompRules {
		return nil, fmt.Errorf("the seccomp profile has more than %d rules", maxSeccompRules)
	}
	names := 0
	for i, rule := range profile.Syscalls {
		if rule == nil {
			return nil, fmt.Errorf("rule %d of the seccomp profile is null", i)
		}
		if names += len(rule.Names); names > maxSeccompNames {
			return nil, fmt.Errorf("the seccomp profile names more than %d system calls", maxSeccompNames)
		}
		if err := checkSeccompRule(rule); err != nil {
			return nil, fmt.Errorf("rule %d of the seccomp profile: %w", i, err)
		}
	}
	return &profile, nil
}

func checkSeccompRule(rule *seccomp.Syscall) error {
	if rule.Name != "" && len(rule.Names) > 0 {
		return fmt.Errorf("it has both name and names")
	}
	if !seccompAction(rule.Action) {
		return fmt.Errorf("%s is not an action", quote(string(rule.Action)))
	}
	for _, arg := range rule.Args {
		if arg == nil || arg.Index > 5 {
			return fmt.Errorf("an argument is null or its index above 5")
		}
	}
	_, err := seccompErrno(rule.Errno, rule.ErrnoRet)
	return err
}

func seccompAction(action seccomp.Action) bool {
	switch action {
	case seccomp.ActKill, seccomp.ActKillProcess, seccomp.ActKillThread, seccomp.ActTrap, seccomp.ActErrno,
		seccomp.ActTrace, seccomp.ActAllow, seccomp.ActLog, seccomp.ActNotify:
		return true
	}
	return false
}

// seccompErrno reads an error's number or name, or falls back to the older field.
func seccompErrno(text string, def *uint) (*uint, error) {
	if text == "" {
		return def, nil
	}
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		number := uint(n)
		return &number, nil
	}
	for number := uint(1); number < 134; number++ {
		if unix.ErrnoName(unix.Errno(number)) == text {
			return &number, nil
		}
	}
	return nil, fmt.Errorf("%s is not an error number", quote(text))
}

// evalSeccomp makes the spec's filter for an architecture (GOARCH) and a bounding
// set: rules may depend on both. Nil is a profile that filters nothing.
func evalSeccomp(profile *seccomp.Seccomp, arch string, bounding []string) (*specs.LinuxSeccomp, error) {
	if profile.DefaultAction == "" && len(profile.Syscalls) == 0 {
		return nil, nil
	}
	native := seccompNames[arch]
	filter := &specs.LinuxSeccomp{
		DefaultAction: specs.LinuxSeccompAction(profile.DefaultAction),
		Architectures: architectures(profile, native),
		ListenerPath:  profile.ListenerPath, ListenerMetadata: profile.ListenerMetadata,
	}
	for _, flag := range profile.Flags {
		filter.Flags = append(filter.Flags, specs.LinuxSeccompFlag(flag))
	}
	var err error
	if filter.DefaultErrnoRet, err = seccompErrno(profile.DefaultErrno, profile.DefaultErrnoRet); err != nil {
		return nil, err
	}
	for _, rule := range profile.Syscalls {
		if !ruleApplies(rule, native, bounding) {
			continue
		}
		names := rule.Names
		if rule.Name != "" {
			names = []string{rule.Name}
		}
		if len(names) == 0 {
			continue
		}
		errno, err := seccompErrno(rule.Errno, rule.ErrnoRet)
		if err != nil {
			return nil, err
		}
		filter.Syscalls = append(filter.Syscalls, specs.LinuxSyscall{
			Names: names, Action: specs.LinuxSeccompAction(rule.Action), ErrnoRet: errno, Args: seccompArgs(rule),
		})
	}
	return filter, nil
}

// ruleApplies: a rule is left out when its excludes name the architecture or a
// capability that is there, or when its includes do not name the architecture or
// name a capability that is not there.
func ruleApplies(rule *seccomp.Syscall, native string, bounding []string) bool {
	if contains(rule.Excludes.Arches, native) {
		return false
	}
	for _, name := range rule.Excludes.Caps {
		if contains(bounding, name) {
			return false
		}
	}
	if len(rule.Includes.Arches) > 0 && !contains(rule.Includes.Arches, native) {
		return false
	}
	for _, name := range rule.Includes.Caps {
		if !contains(bounding, name) {
			return false
		}
	}
	return true
}

func architectures(profile *seccomp.Seccomp, native string) []specs.Arch {
	var arches []specs.Arch
	for _, arch := range profile.Architectures {
		arches = append(arches, specs.Arch(arch))
	}
	for _, entry := range profile.ArchMap {
		if entry.Arch != seccompArches[native] {
			continue
		}
		arches = append(arches, specs.Arch(entry.Arch))
		for _, sub := range entry.SubArches {
			arches = append(arches, specs.Arch(sub))
		}
		break
	}
	return arches
}

func seccompArgs(rule *seccomp.Syscall) []specs.LinuxSeccompArg {
	var args []specs.LinuxSeccompArg
	for _, arg := range rule.Args {
		args = append(args, specs.LinuxSeccompArg{
			Index: arg.Index, Value: arg.Value, ValueTwo: arg.ValueTwo, Op: specs.LinuxSeccompOperator(arg.Op),
		})
	}
	return args
}
