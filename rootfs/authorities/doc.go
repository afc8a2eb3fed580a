// Package authorities collects certificates of authorities that the node trusts in
// addition to the system's. careen.toml, the kernel's command line and IPA's
// configuration name them. An old ramdisk gets a private CA that way.
//
// The size and the number of files are limited. Certificates are read again only when a
// file changes, so an unchanged bundle costs one stat(2) per file.
package authorities
