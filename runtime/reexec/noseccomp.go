//go:build !(cgo && seccomp)

package reexec

func useProgram() {}
