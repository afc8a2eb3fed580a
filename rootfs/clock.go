package rootfs

import (
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// SetClock sets the node's clock, CLOCK_REALTIME, and not the hardware clock. The error
// has no fault code.
func SetClock(t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err == nil {
		err = unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
	}
	if err != nil {
		return fmt.Errorf("cannot set the clock: %w", err)
	}
	return nil
}

// built is set by the linker (see the Makefile): the commit's time, in seconds since 1970.
var built string

// BuildTime returns the time of the commit that the binary was built from. Without one it
// returns the beginning of 2026, careen's first year. A correct clock is never earlier.
func BuildTime() time.Time {
	if seconds, err := strconv.ParseInt(built, 10, 64); err == nil {
		return time.Unix(seconds, 0).UTC()
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key != "vcs.time" {
				continue
			}
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				return t
			}
		}
	}
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
}
