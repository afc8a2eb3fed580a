package oci

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPidsLimit is podman's.
const defaultPidsLimit = 2048

// cgroupRoot is the cgroup below which containers are made.
const cgroupRoot = "/careen"

// Check checks the options that depend on the node but not on the image: limits of its
// cgroup version, AppArmor, SELinux. Call it before the pull; Build repeats it. The error
// is an [Errors] with the codes [fault.BadOption] and [fault.Unsupported].
func (r *Run) Check(node Node) error {
	b := &builder{run: r, o: &r.Options, in: BuildInput{Node: node}, plan: &Plan{}, resources: r.Options.Resources.clone()}
	return b.checkNode()
}

// clone returns a copy whose limits may be changed.
func (r Resources) clone() Resources {
	if r.CPU != nil {
		cpu := *r.CPU
		r.CPU = &cpu
	}
	if r.Memory != nil {
		memory := *r.Memory
		r.Memory = &memory
	}
	if r.BlockIO != nil {
		blockIO := *r.BlockIO
		r.BlockIO = &blockIO
	}
	return r
}

func (b *builder) checkNode() error {
	var errs Errors
	fail := func(option, reason, remedy string) {
		written := "--" + option
		if b.run.scanned != nil {
			written = b.run.scanned.written(option)
		}
		e := badOption(written, reason, "")
		e.Remedy = remedy
		errs = append(errs, e)
	}
	if b.in.Node.CgroupV2 {
		b.checkV2()
	} else {
		b.checkV1(fail)
	}
	if memory := b.resources.Memory; memory != nil && memory.Swap != nil && b.in.Node.NoSwapLimit {
		b.warnf("the kernel cannot limit swap; only memory is limited")
		memory.Swap = nil
	}
	b.checkSecurityModules(fail)
	return errs.err()
}

// checkV2 ignores limits that cgroup v2 does not have, as podman does.
func (b *builder) checkV2() {
	r := &b.resources
	if r.CPU != nil && r.CPU.RealtimePeriod != nil {
		b.warnf("--cpu-rt-period is ignored: cgroup v2 has no real-time period")
		r.CPU.RealtimePeriod = nil
	}
	if r.CPU != nil && r.CPU.RealtimeRuntime != nil {
		b.warnf("--cpu-rt-runtime is ignored: cgroup v2 has no real-time runtime")
		r.CPU.RealtimeRuntime = nil
	}
	if r.Memory != nil && r.Memory.DisableOOMKiller != nil {
		b.warnf("--oom-kill-disable has no effect on cgroup v2")
	}
	if r.Memory != nil && r.Memory.Swappiness != nil {
		b.warnf("--memory-swappiness has no effect on cgroup v2")
	}
}

// checkV1 repeats podman's checks for cgroup v1.
func (b *builder) checkV1(fail func(option, reason, remedy string)) {
	r := &b.resources
	if r.Unified != nil {
		fail("cgroup-conf", "the node has cgroup v1, which does not have these files", "Leave it out on this node")
	}
	if memory := r.Memory; memory != nil {
		switch {
		case memory.Limit != nil && memory.Swap != nil && *memory.Swap < *memory.Limit:
			fail("memory-swap", "memory plus swap is less than --memory", "Use at least the value of --memory")
		case memory.Limit == nil && memory.Swap != nil:
			fail("memory-swap", "it needs --memory", "Add --memory")
		}
		if memory.Swappiness != nil && *memory.Swappiness > 100 {
			fail("memory-swappiness", "it is not from 0 to 100", useExample("--memory-swappiness=10"))
		}
		if memory.Limit != nil && memory.Reservation != nil && *memory.Limit < *memory.Reservation {
			fail("memory-reservation", "it is more than --memory", "Use less than --memory")
		}
	}
	if cpu := r.CPU; cpu != nil {
		if cpu.Period != nil && (*cpu.Period < 1000 || *cpu.Period > 1000000) {
			fail("cpu-period", "it is not from 1000 to 1000000", useExample("--cpu-period=100000"))
		}
		if cpu.Quota != nil && *cpu.Quota < 1000 {
			fail(b.quotaOption(), "the quota is less than 1000 microseconds", useExample("--cpu-quota=50000"))
		}
		b.checkSet("cpuset-cpus", cpu.Cpus, b.in.Node.CPUs, fail)
		b.checkSet("cpuset-mems", cpu.Mems, b.in.Node.MemNodes, fail)
	}
	if r.BlockIO != nil && r.BlockIO.Weight != nil {
		b.checkWeight(fail)
	}
}

func (b *builder) quotaOption() string {
	if b.run.scanned != nil && b.run.scanned.changed("cpus") {
		return "cpus"
	}
	return "cpu-quota"
}

func (b *builder) checkWeight(fail func(option, reason, remedy string)) {
	weight := b.resources.BlockIO.Weight
	switch {
	case b.in.Node.NoBlkioWeight:
		b.warnf("--blkio-weight is ignored: the kernel has no block I/O weight")
		b.resources.BlockIO.Weight = nil
	case *weight < 10 || *weight > 1000:
		fail("blkio-weight", "it is not from 10 to 1000", useExample("--blkio-weight=500"))
	}
}

// checkSet makes sure that a list of CPUs or memory nodes exists; count 0 is unknown.
func (b *builder) checkSet(option, list string, count int, fail func(option, reason, remedy string)) {
	if list == "" {
		return
	}
	highest, err := highestOf(list)
	switch {
	case err != nil:
		fail(option, err.Error(), useExample("--"+option+"=0"))
	case count > 0 && highest >= count:
		fail(option, fmt.Sprintf("the node has only 0 to %d", count-1), "Use existing ones")
	}
}

// highestOf reads a list such as 0-2,7 and returns its highest number.
func highestOf(list string) (int, error) {
	highest := 0
	for _, part := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		low, err := strconv.ParseUint(first, 10, 31)
		high := low
		if err == nil && isRange {
			high, err = strconv.ParseUint(last, 10, 31)
		}
		if err != nil || high < low {
			return 0, fmt.Errorf("%s is not a list such as 0-2,7", quote(list))
		}
		highest = max(highest, int(high))
	}
	return highest, nil
}

func (b *builder) checkSecurityModules(fail func(option, reason, remedy string)) {
	sec := b.o.Security
	if sec.AppArmor != "" && sec.AppArmor != "unconfined" && !b.in.Node.AppArmor {
		fail("security-opt", fmt.Sprintf("the node has no AppArmor, so the profile %s cannot apply", quote(sec.AppArmor)),
			"Use apparmor=unconfined, or leave it out")
	}
	for _, label := range sec.Labels {
		if b.in.Node.SELinux && label != "disable" {
			fail("security-opt", "careen does not set SELinux labels", "Use label=disable")
		}
	}
}

// limits writes the limits into the spec.
func (b *builder) limits() error {
	r := &b.resources
	to := b.spec.Linux.Resources
	to.CPU, to.Memory, to.BlockIO, to.Unified = r.CPU, r.Memory, r.BlockIO, r.Unified
	switch {
	case r.PidsLimit != nil:
		limit := *r.PidsLimit
		if limit == 0 {
			// 0 meant no limit once; the runtime-spec now wants -1 for that.
			limit = -1
		}
		to.Pids = &specs.LinuxPids{Limit: &limit}
	case b.o.Cgroups != "disabled":
		limit := int64(defaultPidsLimit)
		to.Pids = &specs.LinuxPids{Limit: &limit}
	}
	b.spec.Process.OOMScoreAdj = r.OOMScoreAdj
	b.spec.Process.Rlimits = append([]specs.POSIXRlimit(nil), r.Rlimits...)
	if b.o.Cgroups != "disabled" {
		parent := b.o.CgroupParent
		if parent == "" {
			parent = cgroupRoot
		}
		b.spec.Linux.CgroupsPath = path.Join(parent, "careen-"+b.in.ID)
	}
	return b.blockDevices()
}

// blockDevices looks up the devices of block I/O limits.
func (b *builder) blockDevices() error {
	r := &b.resources
	all := [][]DeviceRate{r.WeightDevices, r.ReadBps, r.WriteBps, r.ReadIOPS, r.WriteIOPS}
	for kind, rates := range all {
		for _, rate := range rates {
			device, err := rateDevice(b.in.Host, rate)
			if err != nil {
				return Errors{asFault(err, rate.Written, "")}
			}
			b.addRate(kind, device, rate.Rate)
		}
	}
	return nil
}

func (b *builder) addRate(kind int, device specs.LinuxDevice, rate uint64) {
	to := b.spec.Linux.Resources
	if to.BlockIO == nil {
		to.BlockIO = &specs.LinuxBlockIO{}
	}
	if kind == 0 {
		weight := uint16(rate)
		entry := specs.LinuxWeightDevice{Weight: &weight}
		entry.Major, entry.Minor = device.Major, device.Minor
		to.BlockIO.WeightDevice = append(to.BlockIO.WeightDevice, entry)
		return
	}
	entry := specs.LinuxThrottleDevice{Rate: rate}
	entry.Major, entry.Minor = device.Major, device.Minor
	list := []*[]specs.LinuxThrottleDevice{
		&to.BlockIO.ThrottleReadBpsDevice, &to.BlockIO.ThrottleWriteBpsDevice,
		&to.BlockIO.ThrottleReadIOPSDevice, &to.BlockIO.ThrottleWriteIOPSDevice,
	}[kind-1]
	*list = append(*list, entry)
}

// sysctls writes the default parameter and the operator's.
func (b *builder) sysctls() error {
	if !b.o.Network.Host() {
		b.spec.Linux.Sysctl["net.ipv4.ping_group_range"] = "0 0"
	}
	for name, value := range b.o.Sysctl {
		b.spec.Linux.Sysctl[name] = value
	}
	return nil
}

// needHost makes the error of a Build without a Host.
func needHost(written string) error {
	return &fault.Error{Code: fault.Internal, Op: "build the spec for", Subject: written, Reason: "no node was given"}
}
