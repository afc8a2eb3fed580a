// Package push sends the bundle of a run to an HTTP server by PUT, where it outlives the
// node. Each call makes one attempt. Package exec decides when, and how often.
package push
