// Package inflate decompresses gzip streams (RFC 1951 and 1952) faster than compress/gzip.
// Decompression limits the speed of a pull: one layer is one stream, and only one
// processor can decompress one stream.
//
// It is fast because it reads 64 bits of input at a time, one table lookup
// returns a literal or a length with the number of its extra bits, several
// literals are written per refill, and matches are copied eight bytes at a
// time. Go checks the bounds of every access, so a hostile stream can only make it
// fail.
//
// Consecutive members are one stream, as in gzip(1). The
// checksum and the length of every member are verified. The package does not
// limit the output; the caller limits it.
package inflate
