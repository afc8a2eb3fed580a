package rootfs

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// SetClock sets the node's clock, CLOCK_REALTIME. The hardware clock is left as it is.
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
