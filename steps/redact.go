package steps

import (
	"regexp"
	"strings"
	"sync"

	"github.com/careen-project/careen/steps/ipa"
)

// secretOptions are the options whose value may be a secret, and whether it is one
// of the form NAME=SECRET, of which the name can be shown.
var secretOptions = map[string]bool{
	"--creds": false, "--decryption-key": false, "--env": true, "-e": true, "--password": false, "-p": false,
}

// reShortEnv is -eNAME=SECRET, also behind switches without a value, as in -ite.
var reShortEnv = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)\A(-[dPqit]*e)(.*)\z`)
})

const hidden = "***"

// redact returns option items with the values that may be secrets hidden, for
// what is shown to people. An item may hold several words, as in configurations,
// and an option's value may be the word or the item after it.
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

// redactWord hides what is secret in word, the value of option after if that is
// not "", and returns the option that the next word is the value of.
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
