package steps

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Rule is one [[allow]] entry of careen.toml. It permits images that IPA's
// allowed_containers does not list, and options with them. All matchers that are set
// (Image, Digest, Repository, Glob) must match.
type Rule struct {
	// Name is for messages and the audit record; "" is none.
	Name string
	// From is "FILE:LINE".
	From string
	// Image is compared like an entry of allowed_containers.
	Image string
	// Digest is sha256:..., the digest that the reference must have.
	Digest string
	// Repository is compared with the reference without tag and digest.
	Repository string
	// Glob matches the whole reference; * does not match a slash, ** does.
	Glob string
	// Phases restricts the rule to some of clean, deploy and service; empty is all.
	Phases []string
	// RunOptions and PullOptions are option patterns, split into words. Nil permits no
	// options of that kind: those of a request are ignored.
	RunOptions, PullOptions []string
	// Command permits a direct request to replace the image's command.
	Command bool
	// Limits apply to the containers that this rule permits.
	Limits Limits

	glob      *regexp.Regexp
	permitted [2][]optionPattern // per kind; nil where locked
}

// tomlRule is the form of an allow entry in careen.toml.
type tomlRule struct {
	Name            string
	Image           string
	Digest          string
	Repository      string
	Glob            string
	Phases          []string
	RunOptions      *[]string `toml:"run_options"`
	PullOptions     *[]string `toml:"pull_options"`
	Command         bool
	Timeout         Duration
	SilenceTimeout  Duration `toml:"silence_timeout"`
	RebootExitCodes []int    `toml:"reboot_exit_codes"`
	Critical        bool
}

// kind tells run options from pull options.
type kind int

const (
	runKind kind = iota
	pullKind
)

// String returns the name of the option list, as in a step's arguments.
func (k kind) String() string {
	if k == pullKind {
		return "pull_options"
	}
	return "run_options"
}

// Phases of a node's life in which steps run.
var phases = []string{"clean", "deploy", "service"}

// newRule checks an entry and compiles what it matches.
func (c *Config) newRule(t tomlRule) (*Rule, error) {
	r := &Rule{
		Name: t.Name, Image: t.Image, Digest: t.Digest, Repository: t.Repository, Glob: t.Glob,
		Phases: t.Phases, Command: t.Command,
		Limits: Limits{
			Timeout: t.Timeout.Duration, SilenceTimeout: t.SilenceTimeout.Duration,
			RebootExitCodes: t.RebootExitCodes, Critical: t.Critical,
		},
	}
	if r.Image == "" && r.Digest == "" && r.Repository == "" && r.Glob == "" {
		return nil, errors.New("one of image, digest, repository and glob is required")
	}
	if r.Digest != "" && !reDigest().MatchString(r.Digest) {
		return nil, fmt.Errorf("digest %q is not sha256: and 64 hexadecimal digits", r.Digest)
	}
	if r.Repository != "" {
		ref, ok := splitReference(normalize(r.Repository))
		if !ok || ref.tag != "" || ref.digest != "" {
			return nil, fmt.Errorf("repository %q must be a name without tag and digest", r.Repository)
		}
		r.Repository = ref.repository
	}
	if r.Glob != "" {
		r.glob = compileGlob(normalize(r.Glob), "/")
	}
	for _, phase := range r.Phases {
		if !contains(phases, phase) {
			return nil, fmt.Errorf("phase %q is not clean, deploy or service", phase)
		}
	}
	if err := checkExitCodes(r.Limits.RebootExitCodes); err != nil {
		return nil, err
	}
	var err error
	if r.RunOptions, err = c.compileOptions(r, runKind, t.RunOptions); err != nil {
		return nil, err
	}
	r.PullOptions, err = c.compileOptions(r, pullKind, t.PullOptions)
	return r, err
}

// compileOptions makes the patterns of one option list and returns its words.
func (c *Config) compileOptions(r *Rule, k kind, list *[]string) ([]string, error) {
	if list == nil {
		return nil, nil
	}
	words, err := asOptions(*list)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k, err)
	}
	canonical, err := c.canonical(k, words)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k, err)
	}
	r.permitted[k] = []optionPattern{} // not nil: the list is there, even if empty
	for _, option := range canonical {
		r.permitted[k] = append(r.permitted[k], optionPattern{
			expression: compileGlob(option, "/:,"), open: strings.Contains(option, "*"),
		})
	}
	return words, nil
}

// optionPattern is one option that a rule permits.
type optionPattern struct {
	expression *regexp.Regexp
	// open says that the pattern has a *.
	open bool
}

// matches reports whether the pattern permits the canonical option.
func (p optionPattern) matches(option string) bool {
	return p.expression.MatchString(option) && !(p.open && climbs(option))
}

// climbs reports whether a path in option has the part "." or "..". Such a path can
// lead out of the directory that a pattern names.
func climbs(option string) bool {
	parts := strings.FieldsFunc(option, func(r rune) bool { return strings.ContainsRune(`/:,="`, r) })
	return contains(parts, ".") || contains(parts, "..")
}

// canonical returns the canonical options of words, which patterns are compared with.
func (c *Config) canonical(k kind, words []string) ([]string, error) {
	if len(words) == 0 {
		return nil, nil
	}
	if c.canon[k] == nil {
		return nil, errors.New("options cannot be compared here")
	}
	options, err := c.canon[k](slices.Clone(words))
	if err != nil {
		return nil, err
	}
	for _, option := range options {
		if !strings.HasPrefix(option, "--") || len(option) < 3 {
			return nil, fmt.Errorf("%q is not an option", option)
		}
	}
	return options, nil
}

// matches reports whether the rule applies to this image in this phase.
func (r *Rule) matches(image, phase string) bool {
	if len(r.Phases) > 0 && !contains(r.Phases, phase) {
		return false
	}
	name := normalize(image)
	ref, ok := splitReference(name)
	if !ok {
		return false
	}
	switch {
	case r.Image != "" && normalize(r.Image) != name:
		return false
	case r.Digest != "" && r.Digest != ref.digest:
		return false
	case r.Repository != "" && r.Repository != ref.repository:
		return false
	case r.glob != nil && !r.glob.MatchString(name):
		return false
	}
	return true
}

// String describes the rule for the audit record.
func (r *Rule) String() string {
	var parts []string
	add := func(key, value string) {
		if value != "" {
			parts = append(parts, fmt.Sprintf("%s=%q", key, value))
		}
	}
	add("name", r.Name)
	add("image", r.Image)
	add("digest", r.Digest)
	add("repository", r.Repository)
	add("glob", r.Glob)
	add("phases", strings.Join(r.Phases, ","))
	add("run_options", strings.Join(redact(r.RunOptions), " "))
	add("pull_options", strings.Join(redact(r.PullOptions), " "))
	if r.Command {
		parts = append(parts, "command=true")
	}
	return strings.Join(parts, " ")
}

// compileGlob turns a pattern into an anchored expression: ** matches any text, * any
// text without the characters in stop. After a slash both match at least one
// character that is not in stop, because "DIR/" is the directory and not a file in it.
// Everything else is literal.
func compileGlob(pattern, stop string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); {
		switch {
		case pattern[i] == '*' && i > 0 && pattern[i-1] == '/':
			b.WriteString(`[^` + stop + `]`)
			fallthrough
		case pattern[i] == '*':
			if strings.HasPrefix(pattern[i:], "**") {
				b.WriteString(`.*`)
				i++
			} else {
				b.WriteString(`[^` + stop + `]*`)
			}
			i++
		default:
			end := i + 1
			for end < len(pattern) && pattern[end] != '*' {
				end++
			}
			b.WriteString(regexp.QuoteMeta(pattern[i:end]))
			i = end
		}
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

// checkExitCodes refuses 0, which is success anyway, and what is not an exit code.
func checkExitCodes(codes []int) error {
	for _, code := range codes {
		if code < 1 || code > 255 {
			return fmt.Errorf("reboot_exit_codes: %d is not between 1 and 255", code)
		}
	}
	return nil
}
