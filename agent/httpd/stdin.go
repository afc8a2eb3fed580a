package httpd

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// postStdin feeds a container's standard input from the body, as it comes, for as
// long as container and client want.
func (s *Server) postStdin(w http.ResponseWriter, r *http.Request) (err error) {
	ctl := http.NewResponseController(w)
	defer func() {
		if err != nil {
			abandonBody(w, r) // a terminal's input has no end
		}
	}()
	id := r.PathValue("id")
	closing, err := boolParam(r, "close")
	if err != nil {
		return err
	}
	in, err := s.cfg.Agent.Input(r.Context(), id)
	if err != nil {
		return err
	}
	_ = ctl.SetReadDeadline(time.Time{})
	err = feed(ctl, r, in)
	if closing {
		err = errors.Join(err, in.Close())
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
func feed(ctl *http.ResponseController, r *http.Request, in Input) error {
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(in, r.Body)
		copied <- err
	}()
	select {
	case err := <-copied:
		return err
	case <-in.Done():
	case <-r.Context().Done():
	}
	// Closing the input ends a write that waits for the container, the deadline a
	// read that waits for the client.
	_ = ctl.SetReadDeadline(time.Now())
	_ = in.Close()
	<-copied
	if r.Context().Err() != nil {
		return r.Context().Err()
	}
	return os.ErrClosed
}
