package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/logs"
)

// stream sends what produce writes. Each write has its own deadline, so a client that does
// not read loses its connection.
func stream(w http.ResponseWriter, produce func(io.Writer) error) error {
	ctl := http.NewResponseController(w)
	if err := produce(&streamWriter{w: w, ctl: ctl}); err != nil {
		return errAnswered
	}
	return nil
}

type streamWriter struct {
	w   http.ResponseWriter
	ctl *http.ResponseController
}

func (s *streamWriter) Write(p []byte) (int, error) {
	_ = s.ctl.SetWriteDeadline(time.Now().Add(writeTime))
	return s.w.Write(p)
}

func (s *streamWriter) flush() error { return s.ctl.Flush() }

// pollContext returns the context of a long poll. It ends after the timeout of the query,
// or after def.
func pollContext(r *http.Request, def time.Duration) (context.Context, context.CancelFunc, error) {
	timeout := def
	if text := r.URL.Query().Get("timeout"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > longest {
			return nil, nil, fault.BadField("timeout", "it is not a duration of at most "+longest.String())
		}
		timeout = d
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}

func (s *Server) getWait(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel, err := pollContext(r, time.Minute)
	if err != nil {
		return err
	}
	defer cancel()
	v, err := s.cfg.Agent.Wait(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, v)
}

func (s *Server) getLogs(w http.ResponseWriter, r *http.Request) error {
	opts, err := logOptions(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	output, err := s.cfg.Agent.Output(id)
	if err != nil {
		return err
	}
	defer output.Release()
	opts.Done = output.Done
	if r.URL.Query().Get("tail") == "0" && opts.After == (logs.Cursor{}) {
		// Skip all existing lines. By position, because the clock may jump.
		if opts.After, err = logs.End(output.Dir); err != nil {
			return &fault.Error{Code: fault.Node, Op: "read the output of run", Subject: id, Err: err}
		}
	}
	ndjson := accepts(r, "application/x-ndjson")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if ndjson {
		w.Header().Set("Content-Type", "application/x-ndjson")
	}
	return stream(w, func(out io.Writer) error {
		return copyLog(r.Context(), out.(*streamWriter), output.Dir, opts, ndjson)
	})
}

// copyLog writes a log to a client, flushing whenever there is a pause.
func copyLog(ctx context.Context, out *streamWriter, dir string, opts logs.ReadOptions, ndjson bool) error {
	lines := &lineWriter{out: out, ndjson: ndjson}
	if !opts.Follow {
		return errors.Join(logs.Read(ctx, dir, opts, lines.add), lines.flush())
	}
	if err := out.flush(); err != nil { // send the header, so that the client knows that it is connected
		return err
	}
	opts.Idle = lines.flush
	return errors.Join(logs.Read(ctx, dir, opts, lines.add), lines.flush())
}

// lineWriter collects lines and sends them in pieces of 32 KiB.
type lineWriter struct {
	out    *streamWriter
	ndjson bool
	buf    []byte
}

func (l *lineWriter) add(line logs.Line) error {
	if l.ndjson {
		data, err := json.Marshal(logLine(line))
		if err != nil {
			return err
		}
		l.buf = append(append(l.buf, data...), '\n')
	} else if line.Stream != logs.Careen {
		l.buf = append(l.buf, line.Text...)
		if !line.Partial {
			l.buf = append(l.buf, '\n')
		}
	} else {
		l.buf = append(append(append(l.buf, "careen: "...), line.Text...), '\n')
	}
	if len(l.buf) < 32<<10 {
		return nil
	}
	return l.write()
}

func (l *lineWriter) write() error {
	_, err := l.out.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

func (l *lineWriter) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	if err := l.write(); err != nil {
		return err
	}
	return l.out.flush()
}

func logLine(l logs.Line) api.LogLine {
	line := api.LogLine{Time: l.Time, Stream: l.Stream, Partial: l.Partial, Cursor: l.Cursor.String()}
	if utf8.Valid(l.Text) {
		line.Text = string(l.Text)
	} else {
		line.Base64 = l.Text
	}
	return line
}

// logOptions reads the query of a log.
func logOptions(r *http.Request) (opts logs.ReadOptions, err error) {
	q := r.URL.Query()
	if opts.Follow, err = boolParam(r, "follow"); err != nil {
		return opts, err
	}
	if text := q.Get("tail"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return opts, fault.BadField("tail", "it is not a number of lines")
		}
		opts.Tail = n
	}
	switch opts.Stream = q.Get("stream"); opts.Stream {
	case "", logs.Stdout, logs.Stderr:
	default:
		return opts, fault.BadField("stream", "it is neither stdout nor stderr")
	}
	if text := q.Get("since"); text != "" {
		if opts.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return opts, fault.BadField("since", "it is not a time such as 2026-01-02T15:04:05Z")
		}
	}
	if text := q.Get("after"); text != "" {
		if opts.After, err = logs.ParseCursor(text); err != nil {
			return opts, fault.BadField("after", "it is not a cursor of a log line")
		}
	}
	return opts, nil
}

// boolParam reads a parameter that is true or false; an absent one is false.
func boolParam(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, fault.BadField(name, "it is neither true nor false")
	}
	return value, nil
}

// accepts reports whether a client asks for a media type by name.
func accepts(r *http.Request, want string) bool {
	for _, part := range strings.Split(r.Header.Get("Accept"), ",") {
		if media, _, err := mime.ParseMediaType(part); err == nil && media == want {
			return true
		}
	}
	return false
}

func (s *Server) getEvents(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	log, err := s.cfg.Agent.Events(id)
	if err != nil {
		return err
	}
	var seq int64
	if text := r.Header.Get("Last-Event-ID"); text != "" {
		if seq, err = strconv.ParseInt(text, 10, 64); err != nil || seq < 0 {
			return fault.BadField("Last-Event-ID", "it is not an event's number")
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	return stream(w, func(out io.Writer) error { return s.sendEvents(r.Context(), out.(*streamWriter), id, log, seq) })
}

// keepAlive is the interval between comments on an event stream without events.
const keepAlive = 15 * time.Second

func (s *Server) sendEvents(ctx context.Context, out *streamWriter, id string, log EventLog, seq int64) error {
	if _, err := io.WriteString(out, ": events of run "+id+"\n\n"); err != nil {
		return err
	}
	for {
		events, missed, more := log.After(seq)
		if missed && seq > 0 {
			// Events were dropped: send the current state first, so that the client does
			// not work with an old one.
			v, err := s.cfg.Agent.Run(id)
			if err != nil {
				return err
			}
			events = append([]api.Event{{Seq: events[0].Seq - 1, Time: time.Now().UTC(), Run: v.ID, Type: "state",
				State: v.State, Pull: v.Pull, Outcome: v.Outcome, Message: "events before this one were dropped"}}, events...)
		}
		for _, e := range events {
			if err := writeEvent(out, e); err != nil {
				return err
			}
			seq = e.Seq
		}
		if err := out.flush(); err != nil {
			return err
		}
		if more == nil {
			return nil
		}
		timer := time.NewTimer(keepAlive)
		select {
		case <-more:
		case <-timer.C:
			if _, err := io.WriteString(out, ": keep-alive\n\n"); err != nil {
				return err
			}
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

func writeEvent(w io.Writer, e api.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Type, data)
	return err
}
