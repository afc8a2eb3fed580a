package oci

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Real-time signals as the C library numbers them, which keeps two for itself.
const (
	sigRTMin = 34
	sigRTMax = 64
	// sigSystemd is SIGRTMIN+3, at which systemd shuts down.
	sigSystemd = sigRTMin + 3
)

// parseSignal reads a number, or a name with or without SIG, in any case of letters
// and with an optional dash.
func parseSignal(text string) (int, error) {
	text = strings.TrimPrefix(text, "-")
	n, err := strconv.Atoi(text)
	if err != nil {
		n = signalByName(strings.TrimPrefix(strings.ToUpper(text), "SIG"))
	}
	if n < 1 || n > sigRTMax {
		return 0, fmt.Errorf("%s is not a signal from 1 to %d", quote(text), sigRTMax)
	}
	return n, nil
}

// signalByName returns 0 for an unknown name.
func signalByName(name string) int {
	switch name {
	case "CLD":
		name = "CHLD"
	case "IOT":
		name = "ABRT"
	case "POLL":
		name = "IO"
	case "RTMIN":
		return sigRTMin
	case "RTMAX":
		return sigRTMax
	}
	if offset, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n := offsetNumber(offset, 15); n > 0 {
			return sigRTMin + n
		}
		return 0
	}
	if offset, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		if n := offsetNumber(offset, 14); n > 0 {
			return sigRTMax - n
		}
		return 0
	}
	return int(unix.SignalNum("SIG" + name))
}

// offsetNumber reads a number from 1 to limit as people write it, else 0.
func offsetNumber(text string, limit int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > limit || strconv.Itoa(n) != text {
		return 0
	}
	return n
}
