// Package trust reads podman's policy.json and says which images an operator lets in.
//
// The file and the order in which its scopes are tried are those of
// containers-policy.json(5). careen honours "insecureAcceptAnything" and "reject".
// What asks for a signature is refused, since careen checks none: an operator who
// demands one must not get an image without.
//
// Like package oci it touches nothing: who calls reads the file.
package trust
