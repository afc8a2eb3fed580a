package ipa

import (
	_ "embed"
	"strings"
	"sync"
)

// reservedText lists, one to a line, the names that IPA's generic and container
// hardware managers answer to. integration/ipadiff makes it from the real IPA and
// fails when it is out of date.
//
//go:embed reserved.txt
var reservedText string

var reservedNames = sync.OnceValue(func() map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(reservedText) {
		if name := strings.TrimSpace(line); name != "" && name[0] != '#' {
			names[name] = true
		}
	}
	return names
})

// Reserved reports whether every IPA answers to the name itself, so that a step of
// the steps file must not have it. Managers that are loaded beside can reserve
// more, see steps.LoadSteps.
func Reserved(name string) bool { return reservedNames()[name] }
