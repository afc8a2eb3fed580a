// Package verify decides whether podman's policy.json allows an image, and verifies the
// image's signatures where a rule requires them.
//
// The format of the file and the verification are those of containers-policy.json(5) and
// come from the library that podman uses, go.podman.io/image. This package finds the rule
// for an image, reads the keys with a size limit, and refuses by name what careen does not
// support: Fulcio and other certificates, Rekor, and signedBaseLayer.
//
// It opens no connection. The caller fetches the signatures, and only when a rule
// requires one.
package verify
