package httpd

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/careen-project/careen/agent/fault"
)

// postStdin copies the body to a container's standard input as it arrives, without a time
// limit.
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
			Reason: "the container no longer reads its input"}
	}
	_ = ctl.SetWriteDeadline(time.Now().Add(writeTime))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// feed copies the body to in until the body or the run ends.
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
	// The deadline ends a read that waits for the client, Close a write that waits for the
	// container.
	_ = ctl.SetReadDeadline(time.Now())
	_ = in.Close()
	<-copied
	if r.Context().Err() != nil {
		return r.Context().Err()
	}
	return os.ErrClosed
}
