// Package osthread runs a function on a separate operating-system thread, so that
// the function can change the thread's namespaces and root.
//
// The package is a leaf: it imports nothing of careen.
package osthread
