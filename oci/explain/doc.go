// Package explain describes run options for people: the option lists of --help, and what a
// set of options does before it runs (`careen explain`).
//
// [Compare] works on two plans of package oci, with and without the options. [AssumedHost]
// replaces a node that is not at hand. The package reads no file and runs nothing.
package explain
