// Package reexec answers before main when the binary is started as something
// other than careen's command line.
//
// libcontainer starts a container by executing its own program again with the
// argument "init": C code of package nsenter joins the namespaces before Go
// starts, and libcontainer.Init does the rest. Both have to happen in an init
// function. The earlier it runs among those of the program, the less of the
// binary's own start-up every container pays for, so this package imports
// libcontainer and nothing else.
package reexec
