package steps

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
)

// IPA is written in Python and turns whatever a runbook holds into text with
// str() and str.split(). The policy has to see the same text as IPA would, so
// the rules of Python that matter are here, on the types that JSON and YAML
// give: nil, bool, whole numbers, floats, string, lists and mappings.

// pySpace reports whether Python's str.isspace holds for r. It is Unicode's
// White_Space and the four separators that Python counts in addition.
func pySpace(r rune) bool {
	return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f)
}

// pyFields is Python's str.split() without arguments.
func pyFields(s string) []string { return strings.FieldsFunc(s, pySpace) }

// pyStrip, pyLstrip and pyRstrip are Python's methods without arguments.
func pyStrip(s string) string  { return strings.TrimFunc(s, pySpace) }
func pyLstrip(s string) string { return strings.TrimLeftFunc(s, pySpace) }
func pyRstrip(s string) string { return strings.TrimRightFunc(s, pySpace) }

// pyNumber turns every numeric type that a decoder may give into *big.Int or
// float64. A float64 without a fraction counts as whole: encoding/json gives
// float64 for both unless told otherwise.
func pyNumber(v any) (any, bool) {
	switch n := v.(type) {
	case *big.Int, pyFloat:
		return n, true
	case int:
		return big.NewInt(int64(n)), true
	case int64:
		return big.NewInt(n), true
	case uint64:
		return new(big.Int).SetUint64(n), true
	case json.Number:
		if i, ok := new(big.Int).SetString(n.String(), 10); ok {
			return i, true
		}
		f, err := n.Float64()
		return pyFloat(f), err == nil || math.IsInf(f, 0) // Python reads 1e999 as infinite, too
	case float64:
		if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return big.NewInt(int64(n)), true
		}
		return pyFloat(n), true
	}
	return nil, false
}

// pyFloat is a number that Python holds as float, even when it is whole.
type pyFloat float64

// pyType is the name that IPA's messages give the type of v, as type(v).__name__.
func pyType(v any) string {
	switch n, ok := pyNumber(v); {
	case ok && isFloat(n):
		return "float"
	case ok:
		return "int"
	}
	switch v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case string:
		return "str"
	case []any, []string:
		return "list"
	case map[string]any, *mapping:
		return "dict"
	case date:
		return "date"
	}
	return fmt.Sprintf("%T", v)
}

func isFloat(n any) bool { _, ok := n.(pyFloat); return ok }

// pyTruth is Python's bool(v).
func pyTruth(v any) bool {
	if n, ok := pyNumber(v); ok {
		if i, whole := n.(*big.Int); whole {
			return i.Sign() != 0
		}
		return n.(pyFloat) != 0
	}
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case []string:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	case *mapping:
		return len(v.entries) > 0
	}
	return true
}

// pyStr is Python's str(v) for what may stand in a list of options. Mappings
// are not turned into text: their order is lost in JSON, and no option is one.
func pyStr(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case date:
		return string(v), nil
	default:
		return pyRepr(v)
	}
}

// pyRepr is Python's repr(v) under the same limits.
func pyRepr(v any) (string, error) {
	if n, ok := pyNumber(v); ok {
		if i, whole := n.(*big.Int); whole {
			return i.String(), nil
		}
		return reprFloat(float64(n.(pyFloat))), nil
	}
	switch v := v.(type) {
	case nil:
		return "None", nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case string:
		return reprString(v), nil
	case []string:
		items := make([]any, len(v))
		for i, s := range v {
			items[i] = s
		}
		return pyRepr(items)
	case []any:
		parts := make([]string, len(v))
		for i, item := range v {
			text, err := pyRepr(item)
			if err != nil {
				return "", err
			}
			parts[i] = text
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	}
	return "", fmt.Errorf("a value of type %s cannot be an option", pyType(v))
}

// reprFloat is the shortest text that reads back as f, in Python's notation.
func reprFloat(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	exp := strconv.FormatFloat(f, 'e', -1, 64)
	mantissa, power, _ := strings.Cut(exp, "e")
	if p, err := strconv.Atoi(power); err == nil && p >= -4 && p < 16 {
		text := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		return text
	}
	return mantissa + "e" + power
}

// reprString quotes s as Python does: single quotes unless s holds some and no
// double ones, escapes for what does not print.
func reprString(s string) string {
	quote := '\''
	if strings.ContainsRune(s, '\'') && !strings.ContainsRune(s, '"') {
		quote = '"'
	}
	var b strings.Builder
	b.WriteRune(quote)
	for _, r := range s {
		switch {
		case r == quote || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteRune(quote)
	return b.String()
}

// Limits on the options of one step, far above what a kernel's argument list
// would take from a sensible runbook.
const (
	maxOptionWords = 4096
	maxOptionBytes = 128 << 10
)

// asOptions turns options as they come from a runbook, a steps file or a
// configuration into words: a string or a list, each item split on white space.
// There is no quoting, so a value cannot hold a space. Anything else that can
// be told to be wrong is an error, as it is in IPA, where it is a TypeError.
func asOptions(v any) ([]string, error) {
	var items []any
	switch v := v.(type) {
	case nil:
		return []string{}, nil
	case string:
		items = []any{v}
	case []any:
		items = v
	case []string:
		for _, s := range v {
			items = append(items, s)
		}
	default:
		return nil, fmt.Errorf("options must be a string or a list of strings, got %s", pyType(v))
	}
	words, size := []string{}, 0
	for i, item := range items {
		text, err := pyStr(item)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		if size += len(text); size > maxOptionBytes {
			return nil, fmt.Errorf("options are longer than %d bytes", maxOptionBytes)
		}
		words = append(words, pyFields(text)...)
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
		words := make([]string, len(v))
		for i, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("item %d must be a string, got %s", i+1, pyType(item))
			}
			words[i] = s
		}
		return words, nil
	}
	return nil, fmt.Errorf("options must be a list of strings, got %s", pyType(v))
}
