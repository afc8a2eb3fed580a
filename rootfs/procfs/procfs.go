package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Paths of the kernel's files, for messages.
const (
	MemInfoPath = "/proc/meminfo"
	BootIDPath  = "/proc/sys/kernel/random/boot_id"
	statmPath   = "/proc/self/statm"
)

// Memory is the node's memory in bytes.
type Memory struct {
	// Total is all memory that the kernel manages (MemTotal).
	Total int64
	// Available is what can be allocated without swapping (MemAvailable). Without
	// /proc it is free memory and buffers: caches then count as used.
	Available int64
	// SwapTotal is the size of the swap space.
	SwapTotal int64
}

// MemInfo returns the node's memory from /proc/meminfo (proc_meminfo(5)). Where
// /proc is not mounted it asks sysinfo(2). A file without MemTotal or MemAvailable
// is an error. No error has a fault code.
func MemInfo() (Memory, error) {
	data, err := os.ReadFile(MemInfoPath)
	if os.IsNotExist(err) {
		return sysinfo()
	}
	if err != nil {
		return Memory{}, err
	}
	return parseMemInfo(data)
}

func parseMemInfo(data []byte) (Memory, error) {
	var m Memory
	wanted := map[string]*int64{"MemTotal": &m.Total, "MemAvailable": &m.Available, "SwapTotal": &m.SwapTotal}
	for line := range bytes.Lines(data) {
		name, value, _ := strings.Cut(string(line), ":")
		field := wanted[name]
		if field == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("%s: cannot parse %s: %w", MemInfoPath, name, err)
		}
		*field = kib << 10
		delete(wanted, name)
	}
	for _, name := range []string{"MemTotal", "MemAvailable"} {
		if wanted[name] != nil {
			return Memory{}, fmt.Errorf("%s: no %s", MemInfoPath, name)
		}
	}
	return m, nil
}

func sysinfo() (Memory, error) {
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return Memory{}, os.NewSyscallError("sysinfo", err)
	}
	unit := int64(s.Unit)
	return Memory{
		Total:     int64(s.Totalram) * unit,
		Available: int64(s.Freeram+s.Bufferram) * unit,
		SwapTotal: int64(s.Totalswap) * unit,
	}, nil
}

// HasFilesystem reports whether the running kernel has a type of file system now,
// built in or from a loaded module.
func HasFilesystem(name string) bool {
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		// Without /proc the kernel can still be asked for one type by name.
		fd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
		if err != nil {
			return false
		}
		return unix.Close(fd) == nil
	}
	for line := range bytes.Lines(data) {
		if strings.TrimSpace(strings.TrimPrefix(string(line), "nodev")) == name {
			return true
		}
	}
	return false
}

// Process is the resident memory of a process in bytes.
type Process struct {
	// Resident is all memory that the process has in RAM. It is Anonymous and File.
	Resident int64
	// Anonymous is memory that belongs to the process alone: heap and stacks.
	Anonymous int64
	// File is pages of files and of shared memory. Most are pages of the binary, which the
	// page cache holds in any case and can drop.
	File int64
}

// Self returns the resident memory of this process from /proc/self/statm
// (proc_pid_statm(5)). The kernel's counters lag by up to 256 KiB a CPU. No error
// has a fault code.
func Self() (Process, error) {
	data, err := os.ReadFile(statmPath)
	if err != nil {
		return Process{}, err
	}
	return parseStatm(data)
}

func parseStatm(data []byte) (Process, error) {
	fields := strings.Fields(string(data))
	if len(fields) < 3 {
		return Process{}, fmt.Errorf("%s: %d fields, want 7", statmPath, len(fields))
	}
	var pages [2]int64 // resident and shared
	for i := range pages {
		n, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return Process{}, fmt.Errorf("%s: cannot parse field %d: %w", statmPath, i+2, err)
		}
		pages[i] = n * int64(os.Getpagesize())
	}
	return Process{Resident: pages[0], Anonymous: max(pages[0]-pages[1], 0), File: pages[1]}, nil
}

// BootClock returns the time since the kernel started (CLOCK_BOOTTIME). It never
// jumps, goes on while the node is suspended, and is the same clock for all
// processes of one boot.
func BootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME is missing: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// BootID returns the kernel's random id of the current boot. Without /proc it is an
// fs.ErrNotExist. No error has a fault code.
func BootID() (string, error) {
	data, err := os.ReadFile(BootIDPath)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(data))
	if id == "" {
		return "", fmt.Errorf("%s is empty", BootIDPath)
	}
	return id, nil
}
