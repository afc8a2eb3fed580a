package explain

import (
	"fmt"
	"strings"

	"github.com/careen-project/careen/oci"
)

// Explanation is what a set of options does, for an operator who reviews a runbook before
// it runs.
type Explanation struct {
	// Options is one line for each given option, in the order of docs/options.md: its
	// effect, or why it has none.
	Options []string
	// Changes are the differences from the spec of the same image without options.
	Changes []Change
	// Warnings are options that weaken isolation or are ignored, one line each.
	Warnings []string
	// Requires are the requirements in the image's label. The caller fills it.
	Requires []string
	// Assumed are the assumptions about the node and the image, see [AssumedHost].
	Assumed []string
}

// Change is one difference between two plans.
type Change struct {
	// What is changed, such as "memory limit" or "mount /host". Several things of one kind
	// that change alike, such as capabilities, are one change.
	What string
	// From and To are the values; "" is absent.
	From, To string
}

// String writes a change as a line of a diff.
func (c Change) String() string {
	switch {
	case c.From == "" && plainFact(c.To):
		return "+ " + c.What
	case c.From == "":
		return fmt.Sprintf("+ %s: %s", c.What, c.To)
	case c.To == "" && plainFact(c.From):
		return "- " + c.What
	case c.To == "":
		return fmt.Sprintf("- %s: %s", c.What, c.From)
	default:
		return fmt.Sprintf("~ %s: %s → %s", c.What, c.From, c.To)
	}
}

// plainFact is true for values that carry no more than presence.
func plainFact(value string) bool {
	return value == "yes" || value == "allowed" || value == capEffective
}

// String writes the explanation as `careen explain` prints it: warnings first, no
// line longer than 80 columns unless a word is.
func (e *Explanation) String() string {
	var b strings.Builder
	section := func(title, none string, lines []string) {
		b.WriteString(title + "\n")
		if len(lines) == 0 {
			lines = []string{none}
		}
		for _, line := range lines {
			writeWrapped(&b, line, 2, 2, 6)
		}
		b.WriteString("\n")
	}
	changes := make([]string, len(e.Changes))
	for i, change := range e.Changes {
		changes[i] = change.String()
	}
	section("Warnings:", "none: the container has the default isolation", e.Warnings)
	section("What each option does:", "no options", e.Options)
	section("Changes to careen's default for this image (+ added, - removed, ~ changed):", "nothing", changes)
	if len(e.Requires) > 0 {
		section("Required by the image:", "", e.Requires)
	}
	if len(e.Assumed) > 0 {
		section("Assumed, not checked here:", "", e.Assumed)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// Compare explains the options of run. plan is what they make, base what
// [oci.Run.Baseline] makes for the same image, node and id. Values that look like secrets
// are masked. The caller fills Requires and Assumed.
func Compare(run *oci.Run, plan, base *oci.Plan) *Explanation {
	e := &Explanation{Warnings: plan.Warnings}
	for _, use := range run.Given() {
		e.Options = append(e.Options, explainUse(use))
	}
	e.Changes = changes(base, plan)
	return e
}

func explainUse(use oci.Given) string {
	written := "--" + use.Option.Name
	if use.Option.Kind != oci.Bool || use.Value != "true" {
		written += "=" + use.Value
	}
	switch use.Option.Verdict {
	case oci.Accept:
		return fmt.Sprintf("%s has no effect: %s", written, use.Option.Help)
	case oci.Reject:
		return fmt.Sprintf("%s has no effect: this is the default", written)
	}
	return fmt.Sprintf("%s: %s", written, meaning(use))
}
