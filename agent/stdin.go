package agent

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// postStdin feeds a container's standard input from the body, as it comes, for as
// long as container and client want.
func (a *Agent) postStdin(w http.ResponseWriter, r *http.Request) (err error) {
	ctl := http.NewResponseController(w)
	defer func() {
		if err != nil {
			// The server would wait for the rest of the body before it answers, and a
			// terminal's input has no end.
			_ = ctl.SetReadDeadline(time.Now())
		}
	}()
	id := r.PathValue("id")
	closing, err := strconv.ParseBool(orDefault(r.URL.Query().Get("close"), "false"))
	if err != nil {
		return badField("close", "it is neither true nor false")
	}
	c, err := a.runningContainer(id, "write to run")
	if err != nil {
		return err
	}
	in, err := a.stdin(c)
	if err != nil {
		return err
	}
	_ = ctl.SetReadDeadline(time.Time{})
	err = a.feed(ctl, r, in, id)
	if closing {
		err = errors.Join(err, a.closeStdin(c))
	}
	if err != nil {
		return &fault.Error{Code: fault.Conflict, Op: "write to run", Subject: id, Err: err,
			Reason: "the container does not read its input any more"}
	}
	_ = ctl.SetWriteDeadline(time.Now().Add(writeTime))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// feed copies the body until it ends or the run does.
func (a *Agent) feed(ctl *http.ResponseController, r *http.Request, in io.Writer, id string) error {
	a.mu.Lock()
	run, err := a.find(id)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(in, r.Body)
		copied <- err
	}()
	select {
	case err := <-copied:
		return err
	case <-run.done:
	case <-r.Context().Done():
	}
	// Closing the input ends a write that waits for the container, the deadline a
	// read that waits for the client.
	_ = ctl.SetReadDeadline(time.Now())
	a.mu.Lock()
	c := run.rec.container(a.cfg)
	a.mu.Unlock()
	_ = a.closeStdin(c)
	<-copied
	if r.Context().Err() != nil {
		return r.Context().Err()
	}
	return os.ErrClosed
}

// stdin returns the container's standard input, opened once for all requests: to
// close it is to end the input.
func (a *Agent) stdin(c Container) (io.Writer, error) {
	a.stdins.Lock()
	defer a.stdins.Unlock()
	if in, ok := a.stdins.open[c.ID]; ok {
		return in, nil
	}
	in, err := a.cfg.Runner.Stdin(a.ctx, c)
	if err != nil {
		return nil, err
	}
	a.stdins.open[c.ID] = in
	return in, nil
}

func (a *Agent) closeStdin(c Container) error {
	a.stdins.Lock()
	in, ok := a.stdins.open[c.ID]
	delete(a.stdins.open, c.ID)
	a.stdins.Unlock()
	if !ok {
		return nil
	}
	return in.Close()
}
