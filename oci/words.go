package oci

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/careen-project/careen/agent/fault"
)

// Bounds of one set of options. podman's own are the kernel's on arguments; no
// runbook comes near either.
const (
	maxWords     = 4096
	maxWordBytes = 1 << 20
)

// Words turns options as Ironic's agent holds them into words: nil, a string, or
// a list whose elements may hold several words. Text is split on white space with
// no quoting, as the agent's str.split() does, so no word can hold a blank.
// Elements that are numbers or booleans are written as Python writes them.
func Words(v any) ([]string, error) {
	texts, err := wordTexts(v)
	if err != nil {
		return nil, err
	}
	var words []string
	for _, text := range texts {
		words = append(words, strings.FieldsFunc(text, isPythonSpace)...)
	}
	return limitWords(words)
}

// ExactWords takes the same shapes as [Words], but the elements of a list are
// words already and may hold blanks; a string is split as a POSIX shell splits it,
// quotes and backslashes included, with nothing expanded.
func ExactWords(v any) ([]string, error) {
	if text, ok := v.(string); ok {
		words, err := splitShell(text)
		if err != nil {
			return nil, err
		}
		return limitWords(words)
	}
	words, err := wordTexts(v)
	if err != nil {
		return nil, err
	}
	return limitWords(words)
}

// isPythonSpace is str.isspace of one character: Unicode's white space and the
// four ASCII separators that Go leaves out.
func isPythonSpace(r rune) bool {
	return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f)
}

func limitWords(words []string) ([]string, error) {
	if len(words) > maxWords {
		return nil, &fault.Error{
			Code: fault.BadRequest, Op: "read options",
			Reason: fmt.Sprintf("%d words are more than %d", len(words), maxWords),
			Remedy: "Give the values in an --env-file",
		}
	}
	total := 0
	for _, word := range words {
		if total += len(word); total > maxWordBytes {
			return nil, &fault.Error{
				Code: fault.BadRequest, Op: "read options",
				Reason: fmt.Sprintf("they are longer than %d bytes", maxWordBytes), Remedy: "Give the values in an --env-file",
			}
		}
		// A NUL cannot be part of an argument, so podman never sees one.
		if strings.ContainsRune(word, 0) {
			return nil, &fault.Error{
				Code: fault.BadRequest, Op: "read options",
				Reason: "a word contains a NUL byte", Remedy: "Remove it",
			}
		}
	}
	return words, nil
}

func wordTexts(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []string:
		return v, nil
	case []any:
		texts := make([]string, 0, len(v))
		for i, element := range v {
			text, err := wordText(element)
			if err != nil {
				return nil, badShape(fmt.Sprintf("element %d", i), element)
			}
			texts = append(texts, text)
		}
		return texts, nil
	default:
		return nil, badShape("the value", v)
	}
}

func badShape(what string, v any) error {
	return &fault.Error{
		Code: fault.BadRequest, Op: "read options",
		Reason: fmt.Sprintf("%s is a %T, not text", what, v),
		Remedy: `Use a string such as "--rm --network=host" or a list of strings`,
	}
}

func wordText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case int:
		return strconv.Itoa(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	default:
		return "", fmt.Errorf("%T is not text", v)
	}
}

// splitShell splits text into words by the quoting rules of the POSIX shell.
func splitShell(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	started := false
	quote := rune(0)
	runes := []rune(text)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case quote == '\'' && r != '\'':
			word.WriteRune(r)
		case quote == '"' && r == '\\' && i+1 < len(runes) && strings.ContainsRune("$`\"\\\n", runes[i+1]):
			i++
			word.WriteRune(runes[i])
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, started = r, true
		case r == '\\' && i+1 < len(runes):
			i++
			word.WriteRune(runes[i])
			started = true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if quote != 0 {
		return nil, &fault.Error{
			Code: fault.BadRequest, Op: "read options",
			Reason: fmt.Sprintf("the quote %c is not closed", quote),
			Remedy: "Close it, or give the options as a list",
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}
