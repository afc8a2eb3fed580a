//go:build cgo && seccomp

package reexec

/*
#cgo LDFLAGS: -Wl,--wrap=seccomp_rule_add_array -Wl,--wrap=seccomp_export_bpf
#include <stdint.h>
#include <stddef.h>
#include <unistd.h>
#include <errno.h>

// What the linker puts between libcontainer and libseccomp.
extern int __real_seccomp_rule_add_array(void *ctx, uint32_t action, int syscall, unsigned int count, const void *args);
extern int __real_seccomp_export_bpf(void *ctx, int fd);

// The file of the program, -1 for none, and whether it holds one.
static int program = -1, known;

static void use_program(int fd, int holds_one) { program = fd; known = holds_one; }

int __wrap_seccomp_rule_add_array(void *ctx, uint32_t action, int syscall, unsigned int count, const void *args)
{
	if (known)
		return 0;
	return __real_seccomp_rule_add_array(ctx, action, syscall, count, args);
}

int __wrap_seccomp_export_bpf(void *ctx, int fd)
{
	char buffer[4096];
	off_t at = 0;
	ssize_t n;
	int rc;

	if (program < 0)
		return __real_seccomp_export_bpf(ctx, fd);
	if (!known && (rc = __real_seccomp_export_bpf(ctx, program)) < 0)
		return rc;
	while ((n = pread(program, buffer, sizeof buffer, at)) > 0) {
		for (ssize_t done = 0, m; done < n; done += m)
			if ((m = write(fd, buffer + done, n - done)) < 0)
				return -errno;
		at += n;
	}
	return n < 0 ? -errno : 0;
}
*/
import "C"

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/runtime/seccomp"
)

// useProgram takes the file that the shim passes for the container's seccomp program.
// It holds the program if the same profile was compiled before; otherwise libseccomp
// writes the program to it. Compiling a profile takes libseccomp longer than everything
// else that a container's init does.
func useProgram() {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(seccomp.FD))
	if err != nil || name != seccomp.Link {
		return
	}
	var stat unix.Stat_t
	if unix.Fstat(seccomp.FD, &stat) != nil {
		return
	}
	// The container must not inherit it.
	unix.CloseOnExec(seccomp.FD)
	holds := C.int(0)
	if stat.Size > 0 {
		holds = 1
	}
	C.use_program(C.int(seccomp.FD), holds)
}
