package httpd

import (
	"bytes"
	"regexp"
	"slices"
	"sync"
)

// hidden replaces a secret in a bundle.
const hidden = "***"

// Parts of the patterns below. secretName is what the name of a secret contains: a word for
// a secret, or a name of ironic-python-agent and Ironic, such as ipa-agent-token,
// agent_secret_token, redfish_password and X-Auth-Token. plainKey is a name that is likely a
// secret on a command line only: "key" is a usual member of JSON.
const (
	secretName = `(?:token|passw|passphrase|passwd|pwd|secret|cred|cookie|\bauth\b|(?:api|private|access|ssh|luks|encryption|master)[_.-]?key)`
	plainKey   = `(?:` + secretName + `|key\b)`
	name       = `[\w.-]*`
	quote      = `\\*["']`
	bare       = `[^\s"'\\,;&{}\[\]()]`
)

// secretForms are the forms in which secrets are written. Every group is a secret;
// what is before it stays.
var secretForms = sync.OnceValue(func() []*regexp.Regexp {
	var forms []*regexp.Regexp
	for _, form := range []string{
		// name=value, with or without quotes. A value without quotes goes on at a comma or
		// a bracket: part of a secret is a secret.
		`(?i)` + plainKey + name + `=(?:"([^"\s,\]}][^"\n]*)"|'([^'\n]*)'|\\+"([^"\\\n]*)|([^\s"'\\&]+))`,
		// "name": "value"
		`(?i)` + secretName + name + quote + `\s*:\s*(?:"((?:[^"\\\n]|\\.)*)"|\\+"([^"\\\n]*)|'([^'\n]*)')`,
		// name: value
		`(?i)` + secretName + name + `:\s*(?:"([^"\n]*)"|'([^'\n]*)'|(` + bare + `+))`,
		// --name value, also as two items of a list
		`(?i)--[\w-]*` + secretName + `[\w-]*(?:` + quote + `,)?\s+(?:` + quote + `)?(` + bare + `[^\s"'\\]*)`,
		`(?i)authorization` + quote + `?\s*[:=]\s*(?:` + quote + `)?(?:basic|bearer|digest|negotiate)\s+([^\s"'\\]+)`,
		`(?i)\bbearer\s+([\w.~+/=-]{8,})`,
		`://[^\s/:@"']*:([^\s/"']+)@`,
		`-----BEGIN [A-Z ]*PRIVATE KEY-----([^"]*?)(?:-----END|"|\z)`,
	} {
		forms = append(forms, regexp.MustCompile(form))
	}
	return forms
})

// masker hides secrets in the files of a bundle: those that are known, and those that
// look like one.
type masker struct{ known [][]byte }

// minKnown is the length of the shortest known secret that is looked for everywhere.
const minKnown = 6

// learn takes the secrets of a text that has them as name=value, such as the kernel's
// command line, as known.
func (m *masker) learn(text []byte) {
	for _, secret := range find(secretForms()[0], text) {
		if value := bytes.Clone(text[secret[0]:secret[1]]); len(value) >= minKnown {
			m.known = append(m.known, value)
		}
	}
}

// triggers are what every form contains, in lower case. Text without any of them has no
// secret, so that the patterns, which are slow, see little of a large log.
var triggers = []string{"token", "passw", "passphrase", "pwd", "secret", "cred", "cookie", "auth", "key", "bearer", "://"}

// mask returns data with secrets replaced. It may return data itself.
func (m *masker) mask(data []byte) []byte {
	for _, secret := range m.known {
		data = bytes.ReplaceAll(data, secret, []byte(hidden))
	}
	forms := secretForms()
	lower := bytes.ToLower(data)
	if pem := forms[len(forms)-1]; bytes.Contains(lower, []byte("private key-----")) {
		data = replace(data, find(pem, data)) // it spans many lines
		lower = bytes.ToLower(data)
	}
	if len(lower) != len(data) {
		return maskForms(data) // some letters have another length in lower case
	}
	var out []byte
	at := 0
	for _, r := range suspects(lower) {
		out = append(append(out, data[at:r[0]]...), maskForms(data[r[0]:r[1]])...)
		at = r[1]
	}
	if out == nil {
		return data
	}
	return append(out, data[at:]...)
}

func maskForms(data []byte) []byte {
	for _, form := range secretForms() {
		data = replace(data, find(form, data))
	}
	return data
}

// suspects returns the parts of a text, in whole lines and in order, that may have a secret:
// the lines with a trigger, and some lines after them, where a value may be.
func suspects(lower []byte) (parts [][2]int) {
	const after = 3
	for _, trigger := range triggers {
		for from := 0; ; {
			i := bytes.Index(lower[from:], []byte(trigger))
			if i < 0 {
				break
			}
			i += from
			start, end := bytes.LastIndexByte(lower[:i], '\n')+1, i
			for range after + 1 {
				if n := bytes.IndexByte(lower[end:], '\n'); n >= 0 {
					end += n + 1
				} else {
					end = len(lower)
				}
			}
			parts = append(parts, [2]int{start, end})
			from = end
		}
	}
	slices.SortFunc(parts, func(a, b [2]int) int { return a[0] - b[0] })
	merged := parts[:0]
	for _, p := range parts {
		if n := len(merged); n > 0 && p[0] <= merged[n-1][1] {
			merged[n-1][1] = max(merged[n-1][1], p[1])
		} else {
			merged = append(merged, p)
		}
	}
	return merged
}

// find returns where the secrets of a form are.
func find(form *regexp.Regexp, data []byte) (found [][2]int) {
	for _, match := range form.FindAllSubmatchIndex(data, -1) {
		for group := 2; group < len(match); group += 2 {
			if match[group] >= 0 {
				found = append(found, [2]int{match[group], match[group+1]})
			}
		}
	}
	return found
}

// plainWords are values that are no secrets. They stay because JSON would not be JSON
// without them.
var plainWords = []string{"null", "true", "false", hidden, ""}

func replace(data []byte, secrets [][2]int) []byte {
	var out []byte
	at := 0
	for _, secret := range secrets {
		if slices.Contains(plainWords, string(data[secret[0]:secret[1]])) {
			continue
		}
		out = append(append(out, data[at:secret[0]]...), hidden...)
		at = secret[1]
	}
	if out == nil {
		return data
	}
	return append(out, data[at:]...)
}
