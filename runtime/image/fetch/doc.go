// Package fetch downloads a blob over connections that break.
//
//   - [Blob] is one blob as one stream. After a broken or stalled connection it goes on at
//     the same byte, from the next host if there is one.
//   - [Retry] counts failures in a row and waits between them, longer each time.
//   - [StallGuard] cancels a request that brings no byte for a limit.
//
// It verifies nothing: the reader of the blob does (package unpack). It does not know
// registries: the caller makes the request for a byte range of a blob at a host (package
// image), and says what has to happen before all hosts are tried again.
package fetch
