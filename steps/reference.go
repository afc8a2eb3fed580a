package steps

import (
	"regexp"
	"strings"
	"sync"
)

// transports are the prefixes that name an image in a registry and so may be
// looked through. Any other, such as containers-storage:, is left in place and
// then matches nothing: it would run something else under an allowed name.
var transports = []string{"docker://", "oci://"}

// normalize removes one transport prefix, and does nothing else: no tag is
// added, no letter changed, no registry filled in.
func normalize(image string) string {
	for _, prefix := range transports {
		if rest, ok := strings.CutPrefix(image, prefix); ok {
			return rest
		}
	}
	return image
}

// localTransports are what podman takes for the place of an image when it stands
// before a colon. careen's own rules never match them, though "dir:5000/x" could
// be read as a host and a port.
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

// reference is a normalised image reference taken apart.
type reference struct {
	whole, repository, tag, digest string
}

// maxReference bounds what is matched against rules, in bytes.
const maxReference = 1024

// splitReference takes a normalised reference apart. Where anything about it is
// unusual it reports false, and careen's rules do not match.
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
