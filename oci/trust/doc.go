// Package trust reads podman's policy.json and says which images an operator lets in.
//
// The file, the order in which its scopes are tried and what its requirements mean are
// those of containers-policy.json(5). careen honours "insecureAcceptAnything", "reject",
// and "sigstoreSigned" with public keys: signatures as cosign and podman make them with
// a key of one's own. What asks for another kind of signature is refused, since careen
// checks none of those: an operator who demands one must not get an image without.
//
// Like package oci it touches nothing: who calls reads the files and fetches the
// signatures.
package trust
