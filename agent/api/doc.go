// Package api holds the types that travel over the agent's socket.
//
// They are what agent/httpd/openapi.yaml describes, and the only types that the
// server (package agent/httpd) and the client (package agent/client) share. All times
// are RFC 3339 in UTC, all durations in JSON are strings as time.ParseDuration
// takes them ("90s", "1h30m"), and all sizes are bytes.
package api
