package shim

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPid reads si_pid, which package unix leaves inside the union that
// follows the fixed fields of siginfo_t (on 64-bit Linux it is padded to 16).
func siginfoPid(info *unix.Siginfo) int {
	const fixed = 16
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), fixed)))
}
