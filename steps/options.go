package steps

import (
	"fmt"

	"github.com/careen-project/careen/steps/ipa"
)

// Limits on the options of one step, far above what a kernel's argument list
// would take from a sensible runbook.
const (
	maxOptionWords = 4096
	maxOptionBytes = 128 << 10
)

// asOptions turns options as they come from a runbook, a steps file or a
// configuration into words: a string or a list of strings, each split on white
// space. There is no quoting, so a value cannot hold a space. Anything else is an
// error.
func asOptions(v any) ([]string, error) {
	if text, ok := v.(string); ok {
		v = []string{text}
	}
	items, err := exactOptions(v)
	if err != nil {
		return nil, err
	}
	words, size := []string{}, 0
	for _, text := range items {
		if size += len(text); size > maxOptionBytes {
			return nil, fmt.Errorf("options are longer than %d bytes", maxOptionBytes)
		}
		words = append(words, ipa.Fields(text)...)
		if len(words) > maxOptionWords {
			return nil, fmt.Errorf("more than %d options", maxOptionWords)
		}
	}
	return words, nil
}

// exactOptions takes options that are words already.
func exactOptions(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return []string{}, nil
	case []string:
		return append([]string{}, v...), nil
	case []any:
		return ipa.Texts(v)
	}
	return nil, fmt.Errorf("options must be a string or a list of strings, got %s", ipa.Type(v))
}
