// Package reexec takes over before main when libcontainer starts the binary inside a
// container.
//
// libcontainer executes its own program again with the argument "init": C code of
// package nsenter joins the namespaces before Go starts, and libcontainer.Init does the
// rest. Both must happen in an init function. Every container pays for the init
// functions that run before it, so this package imports libcontainer and little else.
package reexec
