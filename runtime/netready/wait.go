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
	// lookEvery is the time between two looks where no change is told: of name
	// servers none is.
	lookEvery = time.Second
	// settle is how long the changes of one address may trickle in.
	settle = 50 * time.Millisecond
	// lookup bounds one question to the name servers.
	lookup = 5 * time.Second
)

// Gate waits for the node on behalf of one pull, whose requests may fail at the same
// time. Make it with [New].
type Gate struct {
	limit time.Duration
	tell  func(missing string)
	turn  chan struct{}
	left  time.Duration // guarded by turn
}

// New returns a gate whose waits take no longer than limit in all; with a limit of 0
// it never waits. tell hears what is being waited for, whenever that changes, and ""
// at the end of each wait.
func New(limit time.Duration, tell func(missing string)) *Gate {
	return &Gate{limit: limit, left: limit, tell: tell, turn: make(chan struct{}, 1)}
}

// Limit is the longest that all waits may take.
func (g *Gate) Limit() time.Duration { return g.limit }

// Wait waits, if the node is what made a request fail with cause, until it is not, the
// limit is used up or ctx ends. waited says that the node has got what it lacked
// meanwhile; missing what it still lacks.
func (g *Gate) Wait(ctx context.Context, cause error) (waited bool, missing string) {
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
	// First the watch, then the look: what changes in between is seen.
	w := watchNode()
	defer w.close()
	told := ""
	for {
		missing = look(ctx, cause)
		switch {
		case missing == "" || ctx.Err() != nil && told == "":
			if told != "" {
				g.tell("")
			}
			return told != "", missing
		case missing != told:
			told = missing
			g.tell(missing)
		}
		if !w.wait(ctx) {
			g.tell("")
			return false, missing
		}
	}
}

// look is [Missing] for now instead of for when cause came about.
func look(ctx context.Context, cause error) string {
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

// watch hears of changes to the node's links, addresses and routes.
type watch struct{ file *os.File }

// watchNode subscribes to rtnetlink(7). Without that there are only looks now and then.
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

// wait returns after a change, or after a while; false says that ctx has ended.
func (w watch) wait(ctx context.Context) bool {
	if w.file == nil || w.file.SetReadDeadline(time.Now().Add(lookEvery)) != nil {
		return pause(ctx, lookEvery)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// What it says does not matter, nor that it was more than fits: the look follows.
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
