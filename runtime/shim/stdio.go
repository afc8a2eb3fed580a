package shim

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/console"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/utils"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/runtime/logs"
)

// stdio carries a container's output to the run's log and its input from the
// run's FIFO.
type stdio struct {
	log *logs.Writer
	// inherited are the ends the container got; closed here once it has them.
	inherited []*os.File
	// outputs are the ends that are read, by stream name.
	outputs map[string]*os.File
	// feed is the end of the container's standard input that is written to.
	feed *os.File
	fifo *os.File
	// consoleSocket is where the init sends the terminal's master.
	consoleSocket *os.File
	terminal      console.Console

	copies sync.WaitGroup
}

// openStdio makes the streams of a process that is about to start.
func openStdio(target Target, proc *libcontainer.Process, terminal bool) (_ *stdio, err error) {
	s := &stdio{outputs: map[string]*os.File{}}
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	if s.log, err = logs.OpenWriter(target.Dir.Log(), target.LogLimit); err != nil {
		return nil, err
	}
	if target.Stdin {
		// Opened for reading and writing: there is no end of file before CloseIO, whatever
		// the writers do.
		if s.fifo, err = os.OpenFile(target.Dir.Stdin(), os.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("cannot open standard input: %w", err)
		}
	}
	if terminal {
		return s, s.openTerminal(proc)
	}
	return s, s.openPipes(proc, target.Stdin)
}

func (s *stdio) openTerminal(proc *libcontainer.Process) error {
	parent, child, err := utils.NewSockPair("console")
	if err != nil {
		return fmt.Errorf("cannot make console socket: %w", err)
	}
	s.consoleSocket, proc.ConsoleSocket = parent, child
	s.inherited = append(s.inherited, child)
	return nil
}

func (s *stdio) openPipes(proc *libcontainer.Process, stdin bool) error {
	for _, stream := range []struct {
		name string
		dst  *io.Writer
	}{{"stdout", &proc.Stdout}, {"stderr", &proc.Stderr}} {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		s.outputs[stream.name], *stream.dst = r, w
		s.inherited = append(s.inherited, w)
		// The container may reopen its streams by /dev/stdout: they have to be its
		// user's (what a shell script's "> /dev/stderr" does).
		if err := w.Chown(proc.UID, proc.GID); err != nil {
			return err
		}
	}
	if !stdin {
		return nil // libcontainer gives /dev/null
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	proc.Stdin, s.feed = r, w
	s.inherited = append(s.inherited, r)
	return r.Chown(proc.UID, proc.GID)
}

// attach starts to copy. The container has its ends of the streams by then.
func (s *stdio) attach() error {
	if s.consoleSocket != nil {
		master, err := receiveFile(s.consoleSocket)
		if err != nil {
			return fmt.Errorf("cannot receive the terminal: %w", err)
		}
		polled, err := pollable(master)
		if err != nil {
			return fmt.Errorf("cannot use the terminal: %w", err)
		}
		if s.terminal, err = console.ConsoleFromFile(polled); err != nil {
			return fmt.Errorf("cannot use the terminal: %w", err)
		}
		s.outputs["stdout"], s.feed = polled, polled
		_ = s.consoleSocket.Close()
		s.consoleSocket = nil
	}
	s.closeInherited()
	for name, src := range s.outputs {
		dst := s.log.Stream(name)
		s.copies.Go(func() {
			// A terminal ends with EIO, a pipe with EOF, and drain closes the descriptor after
			// its time limit. None of them is an error.
			_, _ = io.Copy(dst, onlyReader{src})
			_ = dst.Close()
		})
	}
	if s.fifo != nil && s.feed != nil {
		go s.feedInput()
	}
	return nil
}

// receiveFile takes the one descriptor that comes over a unix socket.
func receiveFile(socket *os.File) (*os.File, error) {
	name, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(int(socket.Fd()), name, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oobn])
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages came, not one", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), string(name[:n])), nil
}

// pollable returns a file for the same terminal that the Go runtime's poller
// watches, so that closing it ends a read: a file's mode is decided when it is
// made, and libcontainer makes this one blocking.
func pollable(file *os.File) (*os.File, error) {
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), file.Name()), nil
}

// onlyReader hides the file's WriteTo, which would try splice for every chunk.
type onlyReader struct{ io.Reader }

// feedInput copies the FIFO until closeInput sets its deadline, then what the
// FIFO still holds.
func (s *stdio) feedInput() {
	_, err := io.Copy(s.feed, onlyReader{s.fifo})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.feedRest()
	}
	if s.terminal != nil {
		// A terminal's end of file is the character that a user types (^D).
		_, _ = s.feed.Write([]byte{4})
		return
	}
	_ = s.feed.Close()
}

func (s *stdio) feedRest() {
	raw, err := s.fifo.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n := 0
		if err := raw.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), buf) }); err != nil || n <= 0 {
			return
		}
		if _, err := s.feed.Write(buf[:n]); err != nil {
			return
		}
	}
}

// closeInput is the end of the container's standard input.
func (s *stdio) closeInput() error {
	if s.fifo == nil {
		return nil
	}
	return s.fifo.SetReadDeadline(time.Now())
}

func (s *stdio) resize(width, height uint16) error {
	if s.terminal == nil {
		return fmt.Errorf("the container has no terminal: %w", errdefs.ErrFailedPrecondition)
	}
	return s.terminal.Resize(console.WinSize{Width: width, Height: height})
}

// drain waits for the rest of the output, at most for patience, and closes all files.
func (s *stdio) drain(patience time.Duration) {
	done := make(chan struct{})
	go func() { s.copies.Wait(); close(done) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	s.closeEnds()
	<-done
	if err := s.log.Close(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot close the log: %v\n", err)
	}
}

// abandon closes the streams of a container that did not start.
func (s *stdio) abandon() {
	s.closeInherited()
	s.closeEnds()
	s.copies.Wait()
	if s.log != nil {
		_ = s.log.Close()
	}
}

func (s *stdio) closeInherited() {
	for _, file := range s.inherited {
		_ = file.Close()
	}
	s.inherited = nil
}

func (s *stdio) closeEnds() {
	for _, file := range s.outputs {
		_ = file.Close()
	}
	for _, file := range []*os.File{s.fifo, s.feed, s.consoleSocket} {
		if file != nil {
			_ = file.Close()
		}
	}
}

func splitLines(data []byte) iter.Seq[string] { return strings.Lines(string(data)) }

func cutSpace(line string) (key, value string, ok bool) {
	return strings.Cut(strings.TrimSpace(line), " ")
}
