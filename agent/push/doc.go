// Package push sends a file to an HTTP server by PUT, once per call: what is known of a
// run, to where it outlives the node. When and how often is the agent's to decide.
package push
