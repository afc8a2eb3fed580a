package vm

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// channel is the host's end of the serial port that commands go through.
type channel struct {
	bootTimeout time.Duration
	ready       chan struct{}
	// sending holds a token while no request is on its way, see guest/serve.
	sending chan struct{}
	acks    chan struct{}

	mu      sync.Mutex
	conn    net.Conn
	next    int
	waiting map[string]chan answer
	err     error
	// heard is when the last line came.
	heard time.Time
}

// silenceLimit is the longest silence of a guest that owes an answer. The guest sends a line
// every five seconds by the guest's clock, whatever its commands do: see guest/serve. Without a
// line the emulated processor hangs, and waiting longer is of no use.
const silenceLimit = 2 * time.Minute

// answer is what a command ended with.
type answer struct {
	out  []byte
	code int
	err  error
}

// newChannel serves the one connection that QEMU makes, until that ends.
func newChannel(l net.Listener, bootTimeout time.Duration) *channel {
	c := &channel{
		bootTimeout: bootTimeout, ready: make(chan struct{}, 16), waiting: map[string]chan answer{},
		sending: make(chan struct{}, 1), acks: make(chan struct{}, 1),
	}
	c.sending <- struct{}{}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			c.fail(err)
			return
		}
		defer conn.Close()
		c.mu.Lock()
		c.conn = conn
		c.mu.Unlock()
		c.fail(c.read(conn))
	}()
	return c
}

// fail ends every command that waits, and all later ones.
func (c *channel) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.ready)
	}
	for id, w := range c.waiting {
		w <- answer{err: c.err}
		delete(c.waiting, id)
	}
}

// read takes answers apart until the connection ends.
func (c *channel) read(conn net.Conn) error {
	lines := bufio.NewReader(conn)
	var id string
	var code int
	var body strings.Builder
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the guest's port is closed: %w", err)
		}
		c.mu.Lock()
		c.heard = time.Now()
		c.mu.Unlock()
		line = strings.TrimSpace(line)
		fields := strings.Fields(line)
		switch {
		case line == "ready":
			c.restart()
		case line == "ack":
			c.ack()
		case line == "alive":
		case len(fields) == 3 && fields[0] == "begin":
			id = fields[1]
			body.Reset()
			if code, err = strconv.Atoi(fields[2]); err != nil {
				return fmt.Errorf("the guest answered %q", line)
			}
		case len(fields) == 2 && fields[0] == "end":
			out, err := base64.StdEncoding.DecodeString(body.String())
			c.deliver(id, answer{out, code, err})
		default:
			body.WriteString(line)
		}
	}
}

// ack lets the next request go. None is waited for if the guest booted meanwhile.
func (c *channel) ack() {
	select {
	case c.acks <- struct{}{}:
	default:
	}
}

// restart notes a boot. What the last one was asked will not be answered.
func (c *channel) restart() {
	c.ack()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, w := range c.waiting {
		w <- answer{err: fmt.Errorf("the guest booted again")}
		delete(c.waiting, id)
	}
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

func (c *channel) deliver(id string, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.waiting[id]; ok {
		w <- a
		delete(c.waiting, id)
	}
}

func (c *channel) waitReady(ctx context.Context) error {
	select {
	case _, ok := <-c.ready:
		if ok {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the guest to boot: %w", ctx.Err())
	}
}

func (c *channel) run(ctx context.Context, script string) ([]byte, int, error) {
	w := make(chan answer, 1)
	id, err := c.send(ctx, script, w)
	if err != nil {
		return nil, 0, err
	}
	forget := func(err error) ([]byte, int, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, id)
		return nil, 0, err
	}
	for {
		select {
		case a := <-w:
			return a.out, a.code, a.err
		case <-ctx.Done():
			return forget(ctx.Err())
		case <-time.After(silenceLimit / 4):
			if c.silent() {
				return forget(fmt.Errorf("the guest hangs: it sent nothing for %s", silenceLimit))
			}
		}
	}
}

// silent reports whether the guest has sent nothing for silenceLimit.
func (c *channel) silent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.heard) > silenceLimit
}

// send sends a request when the guest has taken the one before.
func (c *channel) send(ctx context.Context, script string, w chan answer) (string, error) {
	select {
	case <-c.sending:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { c.sending <- struct{}{} }()
	select {
	case <-c.acks: // of a boot, or of a request that nobody waited for
	default:
	}
	id, err := c.write(script, w)
	if err != nil {
		return "", err
	}
	select {
	case <-c.acks:
		return id, nil
	case a := <-w:
		// It was answered, with the answer or with the guest's end.
		w <- a
		return id, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (c *channel) write(script string, w chan answer) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return "", c.err
	case c.conn == nil:
		return "", fmt.Errorf("the guest has not booted")
	}
	c.next++
	id := "c" + strconv.Itoa(c.next)
	if err := c.conn.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c.conn, "%s %s\n", id, encode([]byte(script))); err != nil {
		return "", err
	}
	c.waiting[id] = w
	return id, nil
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
