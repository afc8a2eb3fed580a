package conformance

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
)

// MergePatch applies an RFC 7386 patch.
func MergePatch(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := make(map[string]any)
	if object, ok := target.(map[string]any); ok {
		for name, value := range object {
			out[name] = value
		}
	}
	for name, value := range changes {
		if value == nil {
			delete(out, name)
			continue
		}
		out[name] = MergePatch(out[name], value)
	}
	return out
}

// Diff lists the members that differ between what is wanted and what is there.
func Diff(where string, want, got any) []string {
	wantObject, ok1 := want.(map[string]any)
	gotObject, ok2 := got.(map[string]any)
	if ok1 && ok2 {
		names := make(map[string]bool)
		for name := range wantObject {
			names[name] = true
		}
		for name := range gotObject {
			names[name] = true
		}
		var out []string
		for name := range names {
			out = append(out, Diff(where+"/"+name, wantObject[name], gotObject[name])...)
		}
		sort.Strings(out)
		return out
	}
	if reflect.DeepEqual(want, got) || isEmpty(want) && isEmpty(got) {
		return nil
	}
	wantText, _ := json.Marshal(want)
	gotText, _ := json.Marshal(got)
	return []string{fmt.Sprintf("%s: podman has %s, careen %s", where, wantText, gotText)}
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}
