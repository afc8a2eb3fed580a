// Package initproc is the init that --init puts before a container's command.
//
// As process 1 of a PID namespace it starts the command, passes on the signals that it
// receives, reaps orphans, and ends with the command's exit code. The binary is careen
// itself, bound into the container at /run/careen-init, so that neither node nor image
// needs an init.
package initproc
