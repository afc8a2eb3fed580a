package steps

import (
	"errors"
	"fmt"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps/ipa"
)

// untrusted applies the policy to an image that an argument names. The order is IPA's:
// any image, or only listed ones. A caller that may not choose the image may not
// choose options either. The rules of careen.toml, if there are any, come before IPA's
// list and can permit more images.
func (c *Config) untrusted(d *Decision, req Request, pull, run any) error {
	if err := c.brokenOption("allow_arbitrary_containers"); err != nil {
		return refused(req, fault.BadConfig, err)
	}
	if c.AllowArbitrary {
		d.Entry = "allow_arbitrary_containers"
		return c.ownOptions(d, req, pull, run)
	}
	if matched, err := c.applyRules(d, req, pull, run); matched || err != nil {
		return err
	}
	if err := c.brokenOption("allowed_containers"); err != nil {
		return refused(req, fault.BadConfig, err)
	}
	image := normalize(d.Image)
	for _, entry := range c.Allowed {
		if normalize(entry) == image {
			d.Entry = "allowed_containers " + entry
			if len(d.Command) > 0 {
				return refused(req, fault.Policy, errors.New("the command of an image from allowed_containers is fixed"))
			}
			return c.lockedOptions(d, req, pull, run)
		}
	}
	return notPermitted(req, d.Image)
}

// lockedOptions gives d the configured options and says which were ignored.
func (c *Config) lockedOptions(d *Decision, req Request, pull, run any) error {
	var err error
	if d.PullOptions, err = c.locked(d, req, pullKind, pull); err != nil {
		return err
	}
	d.RunOptions, err = c.locked(d, req, runKind, run)
	return err
}

func (c *Config) locked(d *Decision, req Request, k kind, value any) ([]string, error) {
	if !ipa.Empty(value) {
		d.warn("%s of the request were ignored: %s allows the image with the configured options only", k, d.Entry)
	}
	return c.configured(req, k)
}

// applyRules tries the rules of careen.toml in their order and reports whether one
// decided. A request with options that no matching rule permits is refused: running
// the container without an option that was given could do harm.
func (c *Config) applyRules(d *Decision, req Request, pull, run any) (bool, error) {
	var refusal error
	for i := range c.Rules {
		rule := &c.Rules[i]
		if !rule.matches(d.Image, req.Phase) {
			continue
		}
		trial := *d
		trial.Warnings = append([]string{}, d.Warnings...)
		trial.Entry = strings.TrimSpace("allow " + rule.From + " " + rule.Name)
		trial.Limits = rule.Limits
		err := c.applyRule(&trial, rule, req, pull, run)
		if err == nil {
			*d = trial
			return true, nil
		}
		if refusal == nil {
			refusal = err
		}
	}
	return false, refusal
}

func (c *Config) applyRule(d *Decision, rule *Rule, req Request, pull, run any) error {
	if len(d.Command) > 0 && !rule.Command {
		return refused(req, fault.Policy, fmt.Errorf("%s does not permit another command", d.Entry))
	}
	var err error
	if d.PullOptions, err = c.ruled(d, rule, req, pullKind, pull); err != nil {
		return err
	}
	d.RunOptions, err = c.ruled(d, rule, req, runKind, run)
	return err
}

// ruled returns the options of one kind under a rule.
func (c *Config) ruled(d *Decision, rule *Rule, req Request, k kind, value any) ([]string, error) {
	if rule.permitted[k] == nil {
		return c.locked(d, req, k, value)
	}
	words, err := c.options(req, k, value)
	if err != nil || ipa.Empty(value) {
		return words, err
	}
	wanted, err := c.canonical(k, words)
	if err != nil {
		return nil, refused(req, fault.Policy, fmt.Errorf("%s: %w", k, err))
	}
	// A request may repeat the configured options, which it would get anyway.
	usual := map[string]bool{}
	if base, err := c.configured(req, k); err == nil {
		if options, err := c.canonical(k, base); err == nil {
			for _, option := range options {
				usual[option] = true
			}
		}
	}
	for _, option := range wanted {
		if !usual[option] && !rule.permits(k, option) {
			return nil, refused(req, fault.Policy,
				fmt.Errorf("the option %s is not permitted by %s for image %s", redact([]string{option})[0], d.Entry, shown(d.Image)))
		}
	}
	return words, nil
}

// permits reports whether a pattern of the rule matches the canonical option.
func (r *Rule) permits(k kind, option string) bool {
	for _, pattern := range r.permitted[k] {
		if pattern.matches(option) {
			return true
		}
	}
	return false
}

// maxShown is the longest part of a request that a message repeats, in bytes.
const maxShown = 1024

func shown(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + "..."
	}
	return s
}

// notPermitted is IPA's refusal, word for word: operators search for it.
func notPermitted(req Request, image string) error {
	//nolint:staticcheck // IPA's text
	err := refused(req, fault.Policy, fmt.Errorf("Container image %s is not in [container]allowed_containers and "+
		"[container]allow_arbitrary_containers is not enabled.", shown(image)))
	var e *fault.Error
	if errors.As(err, &e) {
		e.Remedy = "Add the image to allowed_containers, or use a step of the steps file"
	}
	return err
}

func refused(req Request, code fault.Code, err error) error {
	return &fault.Error{Code: code, Op: operation(req), Subject: subject(req), Err: err}
}

func badRequest(req Request, format string, args ...any) error {
	return &fault.Error{
		Code: fault.BadRequest, Op: operation(req), Subject: subject(req), Reason: fmt.Sprintf(format, args...),
	}
}

func operation(req Request) string {
	if req.Step == "" {
		return "run image"
	}
	return "run step"
}

func subject(req Request) string {
	if req.Step == "" {
		return shown(req.Image)
	}
	return shown(req.Step)
}

// partError says which part of a sequence an error is about.
func partError(part int, err error) error {
	var e *fault.Error
	if errors.As(err, &e) {
		inPart := *e
		inPart.Subject = fmt.Sprintf("%s, part %d of the sequence", e.Subject, part)
		return &inPart
	}
	return err
}
