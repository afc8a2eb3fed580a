// Command size prints what each module costs in a binary: "make size" runs it on
// careen with its symbols left in.
//
// A module's share is that of its functions and data by the symbol table, and of the
// line tables, which the linker makes of all functions, in proportion to its code.
// Type descriptions and strings have no names of their own and are counted apart. The
// gzipped column shares out the size of the whole binary, compressed, in proportion:
// an estimate, for code and tables do not compress equally well.
package main
