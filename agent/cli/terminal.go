package cli

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/client"
)

// rawTerminal connects the terminal to a container: every key is sent to it, and its
// size follows the terminal's. restore ends that.
func (c *Console) rawTerminal(ctx context.Context, agent *client.Client, id string) (restore func()) {
	fd := int(c.In.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	raw := *before
	// As cfmakeraw(3) does.
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return func() {}
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGWINCH)
	go func() {
		for range changes {
			if size := c.TerminalSize(); size != nil {
				_ = agent.Resize(ctx, id, *size) // the next change tries again
			}
		}
	}()
	return func() {
		signal.Stop(changes)
		close(changes)
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, before)
	}
}
