package oci

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// cpuPeriod is the CFS period behind --cpus, in microseconds.
const cpuPeriod = 100000

func (p *runParser) limits() {
	r := &p.o.Resources
	r.CPU = p.cpu()
	r.Memory = p.memory()
	r.BlockIO = p.blockIO()
	if _, ok := p.last("pids-limit"); ok {
		limit := p.int("pids-limit", 0)
		if limit == -1 {
			limit = 0
		}
		if limit < math.MinInt32 || limit > math.MaxInt32 {
			p.bad("pids-limit", "it does not fit 32 bits")
		}
		r.PidsLimit = &limit
	}
	if _, ok := p.last("oom-score-adj"); ok {
		score := int(p.int("oom-score-adj", 0))
		if score < -1000 || score > 1000 {
			p.bad("oom-score-adj", "it is not from -1000 to 1000")
		}
		r.OOMScoreAdj = &score
	}
	for _, it := range p.items("cgroup-conf") {
		name, value, ok := strings.Cut(it.value, "=")
		if !ok {
			p.badItem("cgroup-conf", it, "it has no =")
			continue
		}
		if r.Unified == nil {
			r.Unified = make(map[string]string)
		}
		r.Unified[name] = value
	}
}

// cpu returns nil when no limit is given; a zero leaves its limit unset.
func (p *runParser) cpu() *specs.LinuxCPU {
	cpu := specs.LinuxCPU{Cpus: p.text("cpuset-cpus", ""), Mems: p.text("cpuset-mems", "")}
	limited := cpu.Cpus != "" || cpu.Mems != ""
	if cpus := p.float("cpus", 0); cpus > 0 {
		if cpus > math.MaxInt32 {
			p.bad("cpus", "the number is too large")
			return nil
		}
		period, quota := uint64(cpuPeriod), int64(cpus*cpuPeriod)
		cpu.Period, cpu.Quota, limited = &period, &quota, true
	}
	for name, field := range map[string]**uint64{
		"cpu-shares": &cpu.Shares, "cpu-period": &cpu.Period, "cpu-rt-period": &cpu.RealtimePeriod,
	} {
		if n := p.uint(name, 0); n > 0 {
			*field, limited = &n, true
		}
	}
	for name, field := range map[string]**int64{"cpu-quota": &cpu.Quota, "cpu-rt-runtime": &cpu.RealtimeRuntime} {
		if n := p.int(name, 0); n > 0 {
			*field, limited = &n, true
		}
	}
	if !limited {
		return nil
	}
	return &cpu
}

// memory returns nil when no limit is given.
func (p *runParser) memory() *specs.LinuxMemory {
	var memory specs.LinuxMemory
	limited := false
	swap := p.text("memory-swap", "")
	if p.text("memory", "") != "" {
		limited = true
		if limit := p.size("memory"); limit > 0 {
			memory.Limit = &limit
			if swap == "" && limit <= math.MaxInt64/2 {
				double := 2 * limit
				memory.Swap = &double
			}
		}
	}
	if p.text("memory-reservation", "") != "" {
		reservation := p.size("memory-reservation")
		memory.Reservation, limited = &reservation, true
	}
	if swap != "" && swap != "-1" {
		limit := p.size("memory-swap")
		memory.Swap, limited = &limit, true
	}
	if n := p.int("memory-swappiness", -1); n >= 0 {
		swappiness := uint64(n)
		memory.Swappiness, limited = &swappiness, true
	}
	if p.bool("oom-kill-disable", false) {
		disable := true
		memory.DisableOOMKiller, limited = &disable, true
	}
	if !limited {
		return nil
	}
	return &memory
}

func (p *runParser) blockIO() *specs.LinuxBlockIO {
	text := p.text("blkio-weight", "")
	if text == "" {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		p.bad("blkio-weight", quote(text)+" is not a weight from 10 to 1000")
		return nil
	}
	weight := uint16(n)
	return &specs.LinuxBlockIO{Weight: &weight}
}

// ulimits reads --ulimit; "host" drops those before and after it.
func (p *runParser) ulimits() {
	for _, it := range p.items("ulimit") {
		if it.value == "host" {
			p.o.Resources.Rlimits = nil
			return
		}
		limit, err := units.ParseUlimit(it.value)
		if err != nil {
			p.badItem("ulimit", it, err.Error())
			continue
		}
		p.o.Resources.setRlimit(specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(limit.Name), Hard: uint64(limit.Hard), Soft: uint64(limit.Soft),
		})
	}
}

// setRlimit adds a limit, or replaces the one of the same type.
func (r *Resources) setRlimit(limit specs.POSIXRlimit) {
	for i := range r.Rlimits {
		if r.Rlimits[i].Type == limit.Type {
			r.Rlimits[i] = limit
			return
		}
	}
	r.Rlimits = append(r.Rlimits, limit)
}

// namespacedSysctls are the kernel.* parameters of the IPC namespace.
var namespacedSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
	"kernel.shm_rmid_forced",
}

func (p *runParser) sysctls() {
	o := p.o
	o.Sysctl = make(map[string]string)
	for _, it := range p.items("sysctl") {
		name, value, err := parseSysctl(it.value)
		if err == nil {
			err = o.checkSysctl(name)
		}
		if err != nil {
			p.badItem("sysctl", it, err.Error())
			continue
		}
		o.Sysctl[name] = value
	}
}

// parseSysctl reads one NAME=VALUE of a namespaced kernel parameter.
func parseSysctl(text string) (name, value string, err error) {
	name, value, ok := strings.Cut(text, "=")
	switch {
	case !ok:
		return "", "", fmt.Errorf("it is not NAME=VALUE")
	case strings.TrimSpace(name) != name, strings.TrimSpace(value) != value, strings.Contains(value, "="):
		return "", "", fmt.Errorf("it has white space around the name or value, or a second =")
	case contains(namespacedSysctls, name), strings.HasPrefix(name, "net."), strings.HasPrefix(name, "fs.mqueue."):
		return name, value, nil
	}
	return "", "", fmt.Errorf("%s is not namespaced: it applies to the whole node", name)
}

// checkSysctl refuses a parameter whose namespace is the node's.
func (o *RunOptions) checkSysctl(name string) error {
	switch {
	case o.Network.Host() && strings.HasPrefix(name, "net."):
		return fmt.Errorf("%s would change the node, because the container shares its network; use --network=none or ns:PATH", name)
	case o.IPC.Host() && strings.HasPrefix(name, "fs.mqueue."):
		return fmt.Errorf("%s would change the node, because the container shares its IPC namespace", name)
	}
	return nil
}
