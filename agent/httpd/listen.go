package httpd

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// Listen creates the agent's socket at path, mode 0600 and owned by uid. It replaces a
// socket that no process listens on. Closing the listener removes the socket. The error is
// [fault.Conflict] when another agent answers on the socket, else [fault.Node].
func Listen(path string, uid int) (net.Listener, error) {
	fail := func(reason, remedy string, err error) error {
		return &fault.Error{Code: fault.Node, Op: "listen on", Subject: path, Reason: reason, Err: err, Remedy: remedy}
	}
	if len(path) >= len(syscall.RawSockaddrUnix{}.Path) {
		return nil, fail("the path is longer than 107 bytes, the limit for a socket", "Give a shorter --socket", nil)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fail("", "Give another --socket", err)
	}
	release, err := lockSocket(path)
	if err != nil {
		return nil, fail("another agent is starting on it", "Stop the other agent or give another --socket", err)
	}
	defer release()
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fail("", "Give another --socket", err)
	case info.Mode().Type() != os.ModeSocket:
		return nil, fail("the file is not a socket", "Remove it or give another --socket", nil)
	case alive(path):
		return nil, &fault.Error{Code: fault.Conflict, Op: "listen on", Subject: path, Reason: "another agent answers on it",
			Remedy: "Use that agent, stop it, or give another --socket"}
	default:
		if err := os.Remove(path); err != nil {
			return nil, fail("cannot remove the old socket", "Remove it", err)
		}
	}
	return bind(path, uid, fail)
}

// bind creates the socket under a temporary name and renames it, so that it never appears
// with a wrong mode or before it listens.
func bind(path string, uid int, fail func(string, string, error) error) (net.Listener, error) {
	temp := path + ".new"
	if len(temp) >= len(syscall.RawSockaddrUnix{}.Path) {
		temp = path[:len(path)-1] + "~"
	}
	_ = os.Remove(temp)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fail("", "Give another --socket", err)
	}
	ln.SetUnlinkOnClose(false)
	err = os.Chmod(temp, 0o600)
	if err == nil && uid != os.Geteuid() {
		err = os.Chown(temp, uid, -1)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, fail("", "Check the socket's directory", errors.Join(err, ln.Close(), os.Remove(temp)))
	}
	return &listener{UnixListener: ln, path: path}, nil
}

// lockSocket keeps two agents from replacing the same old socket.
func lockSocket(path string) (release func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return func() { dir.Close() }, nil
}

// alive reports whether a process listens at path.
func alive(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return true
	}
	// A full queue (EAGAIN) means that a process listens and is busy.
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, os.ErrNotExist)
}

// listener removes its socket when it is closed.
type listener struct {
	*net.UnixListener
	path string
	once sync.Once
}

func (l *listener) Close() (err error) {
	l.once.Do(func() { err = errors.Join(os.Remove(l.path), l.UnixListener.Close()) })
	return err
}

// errNoPeer says that a connection has no peer credentials.
var errNoPeer = errors.New("cannot read the peer's credentials from the connection")

// peerOf reads the peer credentials of a connection (SO_PEERCRED, unix(7)).
func peerOf(conn net.Conn) (api.Peer, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return api.Peer{}, errNoPeer
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return api.Peer{}, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return api.Peer{}, err
	}
	if cerr != nil {
		return api.Peer{}, cerr
	}
	peer := api.Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}
	if comm, err := os.ReadFile("/proc/" + strconv.Itoa(int(cred.Pid)) + "/comm"); err == nil {
		peer.Command = strings.TrimSpace(string(comm))
	}
	return peer, nil
}
