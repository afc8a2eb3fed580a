package podmandiff

import (
	_ "embed"
	"flag"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/oci/conformance"
)

var (
	listed = flag.Int("listed", 150, "number of listed option sets to compare, 0 for all on both cgroup versions")
	from   = flag.Int("from", 0, "with -listed=0, leave out so many of the sets")
	only   = flag.String("only", "", "compare only the listed option sets that contain this text")
)

//go:embed testdata/sets.txt
var listedSets string

// TestListedSets compares option sets that people thought of: each option in all its
// spellings, with values at the edge of what podman takes. A run takes some of them, drawn by
// the seed that it prints; -listed=0 takes all.
func TestListedSets(t *testing.T) {
	p := newPodman(t)
	places := makePlaces(t)
	sets := readListed(t, places)
	seed := time.Now().UnixNano()
	if *only != "" {
		var kept []optionSet
		for _, set := range sets {
			if strings.Contains(set.String(), *only) {
				kept = append(kept, set)
			}
		}
		sets = kept
	} else if *listed > 0 {
		t.Logf("%d of %d sets, seed %d", *listed, len(sets), seed)
		draw := rand.New(rand.NewSource(seed))
		draw.Shuffle(len(sets), func(i, j int) { sets[i], sets[j] = sets[j], sets[i] })
		sets = sets[:min(*listed, len(sets))]
	} else {
		t.Logf("%d of %d sets", len(sets)-*from, len(sets))
		sets = sets[*from:]
	}
	accepted, refused := 0, 0
	for _, set := range sets {
		got, differences := p.compareSet(t, set, places.Replace(placeDir))
		if len(differences) > 0 {
			t.Errorf("%s\n\t%s", set, strings.Join(differences, "\n\t"))
		}
		if got.refused {
			refused++
		} else {
			accepted++
		}
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
}

// readListed returns every listed set for both cgroup versions.
func readListed(t *testing.T, places *strings.Replacer) []optionSet {
	t.Helper()
	var sets []optionSet
	for _, line := range strings.Split(listedSets, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		words := conformance.Words(places.Replace(line))
		set := optionSet{image: imageNamed("tool"), words: words}
		for i, word := range words {
			if name, ok := strings.CutPrefix(word, "localhost/"); ok {
				set.image = imageNamed(strings.TrimSuffix(name, ":1"))
				set.words, set.command = words[:i:i], words[i+1:]
				break
			}
		}
		require.NotNil(t, set.image, line)
		if !strings.Contains(line, "--net") {
			set.words = append([]string{"--network=none"}, set.words...)
		}
		sets = append(sets, set)
		set.v2 = true
		sets = append(sets, set)
	}
	return sets
}

func imageNamed(name string) *testImage {
	for _, image := range images {
		if image.name == name {
			return image
		}
	}
	return nil
}
