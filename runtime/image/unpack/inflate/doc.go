// Package inflate decompresses gzip streams (RFC 1951 and 1952) faster than compress/gzip.
// Decompression limits the speed of a pull: one layer is one stream, and only one
// processor can decompress one stream.
//
// What makes it fast: 64 bits of input are taken at a time, one table lookup
// gives a literal or a length with the number of its extra bits, several
// literals are written per refill, and matches are copied eight bytes at a
// time. Go checks the bounds of every access, so a hostile stream can only make it
// fail.
//
// Members that follow one another are one stream, as gzip(1) has it. The
// checksum and the length of every member are verified. The output is not
// bounded here; the reader bounds it.
package inflate
