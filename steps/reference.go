package steps

import (
	"regexp"
	"strings"
	"sync"
)

// transports are the prefixes of an image in a registry, which the comparison ignores.
// Any other prefix, such as containers-storage:, stays and then matches nothing:
// another image would run under an allowed name.
var transports = []string{"docker://", "oci://"}

// normalize removes one transport prefix. It does not change tag, case or registry.
func normalize(image string) string {
	for _, prefix := range transports {
		if rest, ok := strings.CutPrefix(image, prefix); ok {
			return rest
		}
	}
	return image
}

// localTransports are the words before a colon that podman takes for a transport. No
// rule matches them, although "dir:5000/x" could be a host and a port.
var localTransports = []string{
	"atomic", "containers-storage", "dir", "docker", "docker-archive", "docker-daemon",
	"oci", "oci-archive", "ostree", "sif", "tarball",
}

var (
	reName = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	})
	reBare = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	})
	reTag = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$`)
	})
	reDigest = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$`)
	})
)

// reference has the parts of a normalised image reference.
type reference struct {
	whole, repository, tag, digest string
}

// maxReference is the longest reference that rules match, in bytes.
const maxReference = 1024

// splitReference splits a normalised reference. It reports false for an unusual
// reference; then no rule matches.
func splitReference(image string) (reference, bool) {
	ref := reference{whole: image}
	if len(image) > maxReference {
		return ref, false
	}
	if first, _, ok := strings.Cut(strings.ToLower(image), ":"); ok && contains(localTransports, first) {
		return ref, false
	}
	rest, digest, hasDigest := strings.Cut(image, "@")
	if hasDigest {
		if !reDigest().MatchString(digest) {
			return ref, false
		}
		ref.digest = digest
	}
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		if !reTag().MatchString(rest[colon+1:]) {
			return ref, false
		}
		ref.tag, rest = rest[colon+1:], rest[:colon]
	}
	ref.repository = rest
	if strings.Contains(rest, "/") {
		return ref, reName().MatchString(rest)
	}
	return ref, reBare().MatchString(rest)
}
