package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// Submit asks for a run. isNew is false if a run with this id exists. Errors have the codes of
// a refused request (see docs/api.md), such as bad_option, policy, busy or conflict.
func (c *Client) Submit(ctx context.Context, req api.RunRequest) (run api.Run, isNew bool, err error) {
	resp, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/runs", json: req})
	if err != nil {
		return run, false, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&run); err != nil {
		return run, false, &fault.Error{Code: fault.Unreachable, Op: "read the agent's answer", Err: err}
	}
	return run, resp.StatusCode == http.StatusAccepted, nil
}

// Runs lists the runs that the agent remembers, oldest first; with states only
// those in one of them.
func (c *Client) Runs(ctx context.Context, states ...api.State) ([]api.Run, error) {
	q := url.Values{}
	if len(states) > 0 {
		words := make([]string, len(states))
		for i, s := range states {
			words[i] = string(s)
		}
		q.Set("state", strings.Join(words, ","))
	}
	return get[[]api.Run](ctx, c, call{method: http.MethodGet, path: "/v1/runs", query: q})
}

// Run returns one run. The error has code not_found if there is none.
func (c *Client) Run(ctx context.Context, id string) (api.Run, error) {
	return get[api.Run](ctx, c, call{method: http.MethodGet, path: runPath(id, "")})
}

// WaitOnce returns the run once it has ended, or as it is after timeout (at most
// ten minutes).
func (c *Client) WaitOnce(ctx context.Context, id string, timeout time.Duration) (api.Run, error) {
	q := url.Values{"timeout": {timeout.String()}}
	return get[api.Run](ctx, c, call{method: http.MethodGet, path: runPath(id, "/wait"), query: q})
}

// Wait returns the run once it has ended, however long that takes.
func (c *Client) Wait(ctx context.Context, id string) (api.Run, error) {
	for {
		run, err := c.WaitOnce(ctx, id, time.Minute)
		if err != nil || run.State.Final() {
			return run, err
		}
		if err := ctx.Err(); err != nil {
			return run, err
		}
	}
}

// Abort asks for a run's end and returns the run. The error has code not_found, or conflict
// if the run has ended or is not abortable.
func (c *Client) Abort(ctx context.Context, id string, req api.AbortRequest) (api.Run, error) {
	return get[api.Run](ctx, c, call{method: http.MethodPost, path: runPath(id, "/abort"), json: req})
}

// Delete deletes a run that has ended. The error has code not_found, or conflict if the run
// has not ended.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.done(ctx, call{method: http.MethodDelete, path: runPath(id, "")})
}

// LogOptions select a part of a run's output. The zero value is all of it.
type LogOptions struct {
	// Follow goes on until the run has ended.
	Follow bool
	// Tail starts with the last lines; nil means all.
	Tail *int
	// Stream is stdout, stderr or "" for both.
	Stream string
	// Since leaves out older lines.
	Since time.Time
	// After continues after the line with this cursor.
	After string
}

func (o LogOptions) query() url.Values {
	q := url.Values{}
	if o.Follow {
		q.Set("follow", "true")
	}
	if o.Tail != nil {
		q.Set("tail", strconv.Itoa(*o.Tail))
	}
	if o.Stream != "" {
		q.Set("stream", o.Stream)
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.UTC().Format(time.RFC3339Nano))
	}
	if o.After != "" {
		q.Set("after", o.After)
	}
	return q
}

// maxLogLine bounds one line of the answer: 16 KiB of text as base64 or escaped.
const maxLogLine = 256 << 10

// Logs calls fn for each line of a run's output. Text is the line's bytes, also
// if they are not UTF-8. To continue after a broken connection, call it again with After
// set to the Cursor of the last line. Errors have code not_found, unreachable, or are
// those of fn.
func (c *Client) Logs(ctx context.Context, id string, opts LogOptions, fn func(l api.LogLine, text []byte) error) error {
	resp, err := c.do(ctx, call{method: http.MethodGet, path: runPath(id, "/logs"), query: opts.query(),
		header: map[string]string{"Accept": "application/x-ndjson"}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLogLine)
	for lines.Scan() {
		var l api.LogLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return &fault.Error{Code: fault.Unreachable, Op: "read the output of run", Subject: id, Err: err}
		}
		text := l.Base64
		if text == nil {
			text = []byte(l.Text)
		}
		if err := fn(l, text); err != nil {
			return err
		}
	}
	return c.broken(ctx, "read the output of run", id, lines.Err())
}

// RawLogs copies a run's output as it was written, both streams as they came.
func (c *Client) RawLogs(ctx context.Context, id string, opts LogOptions, w io.Writer) error {
	resp, err := c.do(ctx, call{method: http.MethodGet, path: runPath(id, "/logs"), query: opts.query()})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return c.broken(ctx, "read the output of run", id, err)
}

// broken explains a stream that ended with an error.
func (c *Client) broken(ctx context.Context, op, id string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, bufio.ErrTooLong):
		return &fault.Error{Code: fault.Internal, Op: op, Subject: id, Err: err}
	default:
		return &fault.Error{Code: fault.Unreachable, Op: op, Subject: id, Err: err,
			Reason: "the connection to the agent broke", Remedy: "Try again; the run goes on without a reader"}
	}
}

// Events calls fn for each event of a run after the one numbered last, until the
// run has ended. Errors are those of [Client.Logs].
func (c *Client) Events(ctx context.Context, id string, last int64, fn func(api.Event) error) error {
	header := map[string]string{"Accept": "text/event-stream"}
	if last > 0 {
		header["Last-Event-ID"] = strconv.FormatInt(last, 10)
	}
	resp, err := c.do(ctx, call{method: http.MethodGet, path: runPath(id, "/events"), header: header})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e api.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return &fault.Error{Code: fault.Unreachable, Op: "read the events of run", Subject: id, Err: err}
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return c.broken(ctx, "read the events of run", id, lines.Err())
}

// Stdin feeds the container's standard input from in. With closing, the input
// ends after it.
func (c *Client) Stdin(ctx context.Context, id string, in io.Reader, closing bool) error {
	q := url.Values{}
	if closing {
		q.Set("close", "true")
	}
	return c.done(ctx, call{method: http.MethodPost, path: runPath(id, "/stdin"), query: q,
		header: map[string]string{"Content-Type": "application/octet-stream"}, body: in})
}

// Resize sets the size of the container's terminal.
func (c *Client) Resize(ctx context.Context, id string, size api.TerminalSize) error {
	return c.done(ctx, call{method: http.MethodPost, path: runPath(id, "/resize"), json: size})
}

// Bundle writes a tar of all that is known of a run.
func (c *Client) Bundle(ctx context.Context, id string, w io.Writer) error {
	return c.copy(ctx, w, runPath(id, "/bundle"))
}

// Spec returns the runtime-spec of a run's container, as JSON without secrets.
func (c *Client) Spec(ctx context.Context, id string) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, call{method: http.MethodGet, path: runPath(id, "/spec")})
}

// OutcomeError returns why a run did not succeed, with the code of its outcome, or nil. For
// a run that has not ended the code is conflict.
func OutcomeError(run api.Run) error {
	switch {
	case run.State == api.Succeeded:
		return nil
	case run.Outcome == nil:
		return &fault.Error{Code: fault.Conflict, Op: "read the outcome of run", Subject: run.ID, Reason: fmt.Sprintf("it is %s", run.State)}
	}
	o := run.Outcome
	return &fault.Error{Code: fault.Code(o.Code), Op: strings.TrimPrefix(o.Message, "cannot "), Remedy: o.Remedy, Attrs: o.Attrs}
}
