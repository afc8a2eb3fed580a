package netready

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// checkEvery is the time between two checks without a notice from the kernel. There
	// are no notices about name servers.
	checkEvery = time.Second
	// settle is the time in which the notices about one address arrive.
	settle = 50 * time.Millisecond
	// lookup bounds one query to the name servers.
	lookup = 5 * time.Second
)

// Waiter waits for the node's network on behalf of one pull, whose requests may fail
// concurrently. Make it with [New].
type Waiter struct {
	limit  time.Duration
	onWait func(missing string)
	turn   chan struct{}
	left   time.Duration // guarded by turn
}

// New returns a waiter whose waits together take at most limit; with a limit of 0 it never
// waits. It calls onWait with what the node lacks whenever that changes during a wait, and
// with "" at the end of each wait.
func New(limit time.Duration, onWait func(missing string)) *Waiter {
	return &Waiter{limit: limit, left: limit, onWait: onWait, turn: make(chan struct{}, 1)}
}

// Limit is the longest time that all waits together may take.
func (g *Waiter) Limit() time.Duration { return g.limit }

// Wait waits if a request failed with cause because the node lacks something: until the node
// has it, the limit is used up, or ctx ends. waited reports that the node got what it
// lacked; missing is what it still lacks.
func (g *Waiter) Wait(ctx context.Context, cause error) (waited bool, missing string) {
	if g.limit <= 0 || Missing(cause) == "" {
		return false, ""
	}
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return false, ""
	}
	began := time.Now()
	defer func() {
		g.left -= time.Since(began)
		<-g.turn
	}()
	ctx, cancel := context.WithTimeout(ctx, g.left)
	defer cancel()
	// Watch before the first check, so that no change in between is missed.
	w := watchNode()
	defer w.close()
	reported := ""
	for {
		missing = missingNow(ctx, cause)
		switch {
		case missing == "" || ctx.Err() != nil && reported == "":
			if reported != "" {
				g.onWait("")
			}
			return reported != "", missing
		case missing != reported:
			reported = missing
			g.onWait(missing)
		}
		if !w.wait(ctx) {
			g.onWait("")
			return false, missing
		}
	}
}

// missingNow is [Missing] for the present state of the node instead of that at the time of
// cause.
func missingNow(ctx context.Context, cause error) string {
	var name *net.DNSError
	if !errors.As(cause, &name) {
		return Missing(cause)
	}
	bounded, cancel := context.WithTimeout(ctx, lookup)
	defer cancel()
	_, err := net.DefaultResolver.LookupNetIP(bounded, "ip", name.Name)
	if err == nil {
		return ""
	}
	if !errors.As(err, &name) {
		return Missing(cause)
	}
	return missingName(name)
}

// watch receives notices about changes of the node's links, addresses and routes.
type watch struct{ file *os.File }

// watchNode subscribes to rtnetlink(7). If that fails, the node is only checked at
// intervals.
func watchNode() watch {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return watch{}
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK |
		unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE})
	if err != nil {
		_ = unix.Close(fd)
		return watch{}
	}
	return watch{file: os.NewFile(uintptr(fd), "rtnetlink")}
}

// wait returns after a change, or after checkEvery; false means that ctx has ended.
func (w watch) wait(ctx context.Context) bool {
	if w.file == nil || w.file.SetReadDeadline(time.Now().Add(checkEvery)) != nil {
		return pause(ctx, checkEvery)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// The content of the notice does not matter, nor an overflow: a check follows.
	_, err := w.file.Read(make([]byte, 32<<10))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err() == nil
	}
	return pause(ctx, settle)
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w watch) close() {
	if w.file != nil {
		_ = w.file.Close()
	}
}
