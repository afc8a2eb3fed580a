// Package httpd is the HTTP API on the agent's Unix socket. It decodes and checks
// requests, writes answers and problem documents, streams output and events, and packs
// bundles. What a run is and does it learn through the interfaces [Agent], [Images] and
// [Policy]; it has no state of runs and takes none of their locks.
//
// openapi.yaml describes every endpoint; a test compares it with the routes and replays
// its examples. Every error becomes an application/problem+json document (RFC 9457) in
// one function, [Problem].
//
// [Listen] makes the socket. Each connection carries the [api.Peer] that the kernel
// reports (SO_PEERCRED, unix(7)); root, the agent's own user and Config.AllowedUIDs may
// ask, all others get 403.
package httpd
