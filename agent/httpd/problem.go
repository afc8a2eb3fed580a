package httpd

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// problemType is the start of the type of a problem; the code follows.
const problemType = "https://careen-project.github.io/problems/"

// titles are the titles of problems by code.
var titles = map[fault.Code]string{
	fault.BadRequest: "The request cannot be read", fault.BadOption: "An option has a bad value",
	fault.Unsupported: "Not supported", fault.BadReference: "The image reference is not valid",
	fault.BadSteps: "The steps file is not valid", fault.BadConfig: "The configuration is not valid",
	fault.Policy: "The container policy does not permit it", fault.NotFound: "Not found",
	fault.Conflict: "Conflict with the current state", fault.Busy: "The agent is busy", fault.Forbidden: "Not permitted",
	fault.RebootPending: "A reboot is pending", fault.Space: "No space is left", fault.Stuck: "A container is stuck",
	fault.Unreachable: "Not ready", fault.Internal: "A defect in careen",
}

// statusOf returns the HTTP status of an error.
func statusOf(err error) int {
	if status, ok := fault.AttrsOf(err)[fault.AttrStatus].(int); ok {
		return status
	}
	switch fault.CodeOf(err) {
	case fault.BadRequest, fault.BadOption, fault.Unsupported, fault.BadReference:
		return http.StatusBadRequest
	case fault.Policy, fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound, fault.ImageNotFound:
		return http.StatusNotFound
	case fault.Conflict, fault.RebootPending, fault.Stuck:
		return http.StatusConflict
	case fault.Busy:
		if full, ok := fault.AttrsOf(err)[fault.AttrQueueFull].(bool); ok && !full {
			return http.StatusConflict // there is no queue
		}
		return http.StatusTooManyRequests
	case fault.Unreachable:
		return http.StatusServiceUnavailable
	case fault.Space:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}

// Problem returns the problem document of an error, without Instance.
func Problem(err error) api.Problem {
	code := fault.CodeOf(err)
	title, ok := titles[code]
	if !ok {
		title = "Request failed"
	}
	p := api.Problem{
		Type: problemType + string(code), Title: title, Status: statusOf(err), Code: string(code),
		Detail: fault.OneLine(err.Error(), fault.MaxLine), Remedy: fault.RemedyOf(err),
	}
	attrs := fault.AttrsOf(err)
	p.Field, _ = attrs[fault.AttrField].(string)
	p.Holder, _ = attrs[fault.AttrHolder].(string)
	for _, key := range []string{fault.AttrField, fault.AttrHolder, fault.AttrQueueFull, fault.AttrStatus} {
		delete(attrs, key)
	}
	if len(attrs) > 0 {
		p.Attrs = attrs
	}
	return p
}

// writeProblem answers with a problem document.
func writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := Problem(err)
	p.Instance = r.URL.Path
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(5))
	}
	data, err := json.Marshal(p)
	if err != nil { // an attribute that cannot be JSON
		p.Attrs = nil
		data, _ = json.Marshal(p)
	}
	_ = send(w, p.Status, "application/problem+json", append(data, '\n'))
}

// parseQuery reads a query strictly.
func parseQuery(raw string) (url.Values, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		var esc url.EscapeError
		if errors.As(err, &esc) {
			return nil, errors.New("it has a bad escape")
		}
		return nil, err
	}
	return values, nil
}
