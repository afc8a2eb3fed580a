// Package authorities collects the certificates of authorities that a node is told to
// trust beside its system's: by careen.toml, by the kernel's command line, by IPA's own
// configuration. A ramdisk that was built long ago gets a private CA that way.
//
// What is read is bounded and kept as long as the files do not change, so that asking
// again costs one stat(2) for each file, and nothing where there is none.
package authorities
