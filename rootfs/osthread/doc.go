// Package osthread runs a function on an operating-system thread of its own, so that
// the function can change the thread's namespaces and root.
//
// The package is a leaf: it imports nothing of careen.
package osthread
