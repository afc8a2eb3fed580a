//go:build !(cgo && seccomp)

package reexec

func useFilter() {}
