// Package filter keeps compiled seccomp programs, by the profile that they were
// compiled from.
//
// libcontainer's init compiles a container's profile with libseccomp each time,
// which takes longer than all the rest that it does. The profile is the same for
// most steps. So the shim passes the init a file: with the program where the same
// profile was compiled before in this boot, empty otherwise. Package reexec uses it,
// or fills it, where libcontainer calls libseccomp; the shim then keeps what was
// filled in.
//
// The program is only ever one that libseccomp made from the same profile. It is
// kept on the node, where only root can write.
package filter
