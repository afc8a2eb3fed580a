// Package inflate decompresses gzip streams (RFC 1951 and 1952) faster than the
// packages it replaces, which is what bounds a pull: one layer is one stream,
// and one stream can be decompressed by one processor only.
//
// What makes it fast: 64 bits of input are taken at a time, one table lookup
// gives a literal or a length with the number of its extra bits, several
// literals are written per refill, and matches are copied eight bytes at a
// time. Every access is checked by Go, so a hostile stream can make it fail and
// nothing else.
//
// Members that follow one another are one stream, as gzip(1) has it. The
// checksum and the length of every member are verified. The output is not
// bounded here; who reads it does that.
package inflate
