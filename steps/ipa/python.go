package ipa

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"unicode"
)

// Space reports whether Python's str.isspace holds for r: Unicode's White_Space and
// four separators of ASCII.
func Space(r rune) bool { return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f) }

// Fields is Python's str.split().
func Fields(s string) []string { return strings.FieldsFunc(s, Space) }

// Strip is Python's str.strip().
func Strip(s string) string { return strings.TrimFunc(s, Space) }

// Type is the name that IPA's messages give the type of v, a value of JSON or YAML.
func Type(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case string:
		return "str"
	case []any, []string:
		return "list"
	case map[string]any:
		return "dict"
	case int:
		return "int"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "float"
		}
		return "int"
	case float64:
		// encoding/json has this one type for all numbers unless UseNumber is set.
		if v != math.Trunc(v) {
			return "float"
		}
		return "int"
	}
	return fmt.Sprintf("%T", v)
}

// Empty reports whether IPA takes v for an absent value: null, false, 0, and text,
// lists and mappings without content. A number of JSON is never empty here.
func Empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case int:
		return v == 0
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case []string:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// Texts returns the items of a list that must all be text. IPA makes text of any item
// with Python's str(), so that true becomes "True"; that is not what was meant. The
// error names the item and has no fault code.
func Texts(items []any) ([]string, error) {
	list := make([]string, len(items))
	for i, item := range items {
		text, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("item %d must be a string, got %s: put it in quotes", i+1, Type(item))
		}
		list[i] = text
	}
	return list, nil
}
