// Command imageserver serves a real registry on a free port of loopback with the
// images of package images, prints its address, and ends when its standard input
// does. It is there for the tests that are not written in Go.
package main
