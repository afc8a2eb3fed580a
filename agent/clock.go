package agent

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
)

// bootClock reads CLOCK_BOOTTIME: it starts with the kernel, never jumps, and is
// the same clock for the agent that comes after this one.
func bootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME is missing: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// bootID returns the kernel's id of this boot.
func bootID() (string, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	data, err := os.ReadFile(path)
	if err != nil {
		return "", &fault.Error{Code: fault.Node, Op: "read the boot id from", Subject: path, Err: err,
			Remedy: "Mount /proc before the agent starts"}
	}
	return strings.TrimSpace(string(data)), nil
}
