package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// DefaultSocket is the socket of an agent without --socket.
const DefaultSocket = "/run/careen/careen.sock"

// maxProblem bounds a problem document in bytes.
const maxProblem = 1 << 20

// Client talks to one agent. Its methods may be called from several goroutines.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the agent at socket; "" is [DefaultSocket]. Nothing is
// connected before the first call.
func New(socket string) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		DisableCompression: true, MaxIdleConns: 4, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
	}
	return &Client{socket: socket, http: &http.Client{Transport: transport}}
}

// Close closes idle connections. It does not affect calls in progress.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one request.
type call struct {
	method, path string
	query        url.Values
	header       map[string]string
	body         io.Reader
	// json is encoded as the body if it is not nil.
	json any
}

// do sends a request and returns an answer of status 2xx; the caller closes its
// body. Anything else is an error.
func (c *Client) do(ctx context.Context, rq call) (*http.Response, error) {
	if rq.json != nil {
		data, err := json.Marshal(rq.json)
		if err != nil {
			return nil, &fault.Error{Code: fault.BadRequest, Op: "write the request", Err: err}
		}
		rq.body = bytes.NewReader(data)
	}
	target := "http://careen" + rq.path
	if len(rq.query) > 0 {
		target += "?" + rq.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, rq.method, target, rq.body)
	if err != nil {
		return nil, &fault.Error{Code: fault.BadRequest, Op: "ask the agent for", Subject: rq.path, Err: err}
	}
	if rq.json != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range rq.header {
		req.Header.Set(k, v)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problem(resp)
	}
	return resp, nil
}

// explain returns the error of a request that got no answer.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f := &fault.Error{Code: fault.Unreachable, Op: "reach the agent at", Subject: c.socket, Err: err,
		Remedy: "Start it with \"careen agent\", or name its socket with --socket"}
	switch {
	case errors.Is(err, syscall.ENOENT):
		f.Reason = "there is no socket"
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Reason = "no agent listens"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		f.Code, f.Reason, f.Remedy = fault.Forbidden, "permission denied", "Run the command as root"
	default:
		f.Reason = "the connection failed: " + firstCause(err).Error()
	}
	return f
}

// firstCause leaves out the request's address, which is made up.
func firstCause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// problem makes an error of a problem document.
func problem(resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	var p api.Problem
	if err := json.Unmarshal(data, &p); err != nil || p.Code == "" {
		return &fault.Error{Code: fault.Unreachable, Op: "understand the agent's answer",
			Reason: "status " + resp.Status + ", and no problem document"}
	}
	return Fault(&p)
}

// Fault makes the error of a problem document. Its message is the document's own;
// the members field, holder and status are in Attrs.
func Fault(p *api.Problem) error {
	attrs := map[string]any{}
	for k, v := range p.Attrs {
		attrs[k] = v
	}
	attrs["status"] = p.Status
	if p.Field != "" {
		attrs["field"] = p.Field
	}
	if p.Holder != "" {
		attrs["holder"] = p.Holder
	}
	// The detail reads "cannot OP ..." already.
	return &fault.Error{Code: fault.Code(p.Code), Op: strings.TrimPrefix(p.Detail, "cannot "), Remedy: p.Remedy, Attrs: attrs}
}

// get asks for JSON.
func get[T any](ctx context.Context, c *Client, rq call) (v T, err error) {
	resp, err := c.do(ctx, rq)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		if ctx.Err() != nil {
			return v, ctx.Err()
		}
		return v, &fault.Error{Code: fault.Unreachable, Op: "read the agent's answer", Err: err}
	}
	return v, nil
}

// done sends a request whose answer has no content.
func (c *Client) done(ctx context.Context, rq call) error {
	resp, err := c.do(ctx, rq)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// copy writes an answer to w as it arrives.
func (c *Client) copy(ctx context.Context, w io.Writer, path string) error {
	resp, err := c.do(ctx, call{method: http.MethodGet, path: path})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	return nil
}

func runPath(id, rest string) string { return "/v1/runs/" + url.PathEscape(id) + rest }
