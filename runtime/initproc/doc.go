// Package initproc is the init that --init puts before a container's command.
//
// As process 1 of a PID namespace it starts the command, passes on the signals
// it gets, buries orphans, and ends with the command's exit code. The binary is
// careen itself, bound into the container at /run/careen-init, so that no init
// has to be on the node or in the image.
package initproc
