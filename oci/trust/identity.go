package trust

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
)

// identity is a signedIdentity: what a signature has to say that it was made for.
type identity struct {
	kind string
	// name is the reference or repository that "exact..." names.
	name reference.Named
	// prefix of the image's name is replaced by signed.
	prefix, signed string
}

// The kinds of a signedIdentity.
const (
	matchExact             = "matchExact"
	matchRepoDigestOrExact = "matchRepoDigestOrExact"
	matchRepository        = "matchRepository"
	exactReference         = "exactReference"
	exactRepository        = "exactRepository"
	remapIdentity          = "remapIdentity"
)

// UnmarshalJSON reads and checks it.
func (i *identity) UnmarshalJSON(data []byte) error {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	var name string
	places := map[string]any{"type": &i.kind}
	switch head.Type {
	case matchExact, matchRepoDigestOrExact, matchRepository:
	case exactReference:
		places["dockerReference"] = &name
	case exactRepository:
		places["dockerRepository"] = &name
	case remapIdentity:
		places["prefix"], places["signedPrefix"] = &i.prefix, &i.signed
	default:
		return fmt.Errorf("unknown type %q", head.Type)
	}
	if err := members(data, places); err != nil {
		return err
	}
	switch i.kind {
	case exactReference, exactRepository:
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if i.kind == exactReference && reference.IsNameOnly(named) {
			return fmt.Errorf("dockerReference %q has neither a tag nor a digest", name)
		}
		i.name = named
	case remapIdentity:
		for _, prefix := range []string{i.prefix, i.signed} {
			if !isPrefix(prefix) {
				return fmt.Errorf("prefix %q is neither a registry nor a repository or a part of one", prefix)
			}
		}
	}
	return nil
}

func isPrefix(s string) bool {
	begins := func(pattern *regexp.Regexp, end string) bool {
		found, err := regexp.MatchString("^"+pattern.String()+end, s)
		return found && err == nil
	}
	return begins(reference.DomainRegexp, "$") || begins(reference.NameRegexp, "$") && begins(reference.DomainRegexp, "/")
}

// matches reports whether a signature made for the name signed counts for the image.
func (i *identity) matches(image reference.Named, signed string) bool {
	claimed, err := reference.ParseNormalizedNamed(signed)
	if err != nil {
		return false
	}
	switch i.kind {
	case matchExact:
		return exact(image, claimed)
	case matchRepository:
		return image.Name() == claimed.Name()
	case exactReference:
		return exact(i.name, claimed)
	case exactRepository:
		return i.name.Name() == claimed.Name()
	case remapIdentity:
		image, err = i.remap(image)
		return err == nil && repositoryOrExact(image, claimed)
	default:
		return repositoryOrExact(image, claimed)
	}
}

func exact(want, claimed reference.Named) bool {
	return !reference.IsNameOnly(want) && !reference.IsNameOnly(claimed) && want.String() == claimed.String()
}

// repositoryOrExact wants the tag that the image was asked by. One that was asked by
// its digest needs no tag, for the digest is in the signature as well.
func repositoryOrExact(image, claimed reference.Named) bool {
	if _, tagged := image.(reference.Tagged); tagged {
		return exact(image, claimed)
	}
	_, digested := image.(reference.Digested)
	return digested && !reference.IsNameOnly(claimed) && image.Name() == claimed.Name()
}

func (i *identity) remap(image reference.Named) (reference.Named, error) {
	rest, ok := strings.CutPrefix(image.Name(), i.prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return image, nil
	}
	return reference.ParseNamed(i.signed + strings.TrimPrefix(image.String(), i.prefix))
}
