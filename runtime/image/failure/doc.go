// Package failure turns the errors of a pull into errors that an operator can act on: a
// *fault.Error with a code, the cause and what to do next. It knows the errors of HTTP,
// TLS, name resolution, registries, the file system and containerd's services.
//
// It decides nothing: whether an error is worth a retry is decided by package fetch, and
// what happens to the pull by package image.
package failure
