package steps

import (
	"regexp"
	"strings"
	"sync"

	"github.com/careen-project/careen/steps/ipa"
)

// secretOptions are the options whose value may be a secret. True stands for values of
// the form NAME=SECRET, whose name can be shown.
var secretOptions = map[string]bool{
	"--creds": false, "--decryption-key": false, "--env": true, "-e": true, "--password": false, "-p": false,
}

// reShortEnv matches -eNAME=SECRET, also after switches without a value, as in -ite.
var reShortEnv = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)\A(-[dPqit]*e)(.*)\z`)
})

const hidden = "***"

// redact returns option items for display, with possible secrets replaced. An item may
// hold several words, and an option's value may be the next word or the next item.
func redact(items []string) []string {
	out := make([]string, len(items))
	next := ""
	for i, item := range items {
		words := ipa.Fields(item)
		for j, word := range words {
			words[j], next = redactWord(word, next)
		}
		out[i] = strings.Join(words, " ")
	}
	return out
}

// redactWord replaces the secret in word. If after is not "", word is the value of that
// option. It returns the option whose value the next word is, or "".
func redactWord(word, after string) (shown, next string) {
	if after != "" {
		return hideValue(word, secretOptions[after]), ""
	}
	if _, secret := secretOptions[word]; secret {
		return word, word
	}
	if name, value, ok := strings.Cut(word, "="); ok {
		if named, secret := secretOptions[name]; secret {
			return name + "=" + hideValue(value, named), ""
		}
	}
	if m := reShortEnv().FindStringSubmatch(word); m != nil {
		if m[2] == "" {
			return word, "-e"
		}
		return m[1] + hideValue(m[2], true), ""
	}
	return word, ""
}

func hideValue(value string, named bool) string {
	if !named {
		return hidden
	}
	name, _, ok := strings.Cut(value, "=")
	if !ok {
		return value // a variable's name, to be taken from the environment
	}
	return name + "=" + hidden
}
