// Package seccomp caches compiled seccomp programs by the profile that they were
// compiled from.
//
// libcontainer's init compiles a container's profile with libseccomp each time, which
// takes longer than the rest of its work. Most steps have the same profile. So the shim
// passes the init a file: with the program if the same profile was compiled before in
// this boot, empty otherwise. Package reexec uses the program, or writes it, where
// libcontainer calls libseccomp; the shim then stores what was written.
//
// Every program comes from libseccomp and from the same profile. The cache is on the
// node, where only root can write.
package seccomp
