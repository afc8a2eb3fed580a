package ipa

import (
	"errors"
	"strings"
	"testing"
)

// FuzzOslo reads any bytes as a configuration file of IPA.
func FuzzOslo(f *testing.F) {
	for _, seed := range []string{
		"", "[container]\nallowed_containers = a, b\n", "[container]\nrun_options=\"--rm\"\n  --x\n", "[c\n", "x=1\n", "[container]\na:b=c\n",
		"[container]\nrunner='\n", "[Container]\r\nrunner=docker\r", "[DEFAULT]\n$$=${a.b}\\$c\n", "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := parseConfig(data, func(section, name string, o Option) {
			if section == "" || name == "" || o.Line < 1 {
				t.Fatalf("%q %q %+v", section, name, o)
			}
			text, err := Unescape(o.Value)
			if err != nil {
				return
			}
			for _, item := range List(text) {
				if item != Strip(item) || strings.Contains(item, ",") {
					t.Fatalf("item %q of %q", item, text)
				}
			}
		})
		var bad *Error
		if err != nil && (!errors.As(err, &bad) || bad.Line < 1) {
			t.Fatalf("an error without a line: %v", err)
		}
	})
}
