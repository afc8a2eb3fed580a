package ipadiff

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// The generators draw from small alphabets of things that matter, so that images
// hit the allowlist, prefixes stack up and white space is of every kind.

var (
	hosts      = []string{"", "registry.example/", "registry.example:5000/", "docker.io/", "docker.io/library/"}
	names      = []string{"tool", "fw/updater", "Tool", "tool "}
	tags       = []string{"", ":1", ":latest", ":1.0", "@sha256:" + strings.Repeat("a", 64), ":1@sha256:" + strings.Repeat("b", 64)}
	transports = []string{
		"", "", "", "docker://", "oci://", "docker://docker://", "oci://docker://", "Docker://", "docker:", "oci:", "http://",
		"https://", "containers-storage:", "dir:/", "oci-archive:", "docker-daemon:", " docker://", "docker:///",
	}
	words = []string{
		"--rm", "--network=host", "--privileged", "-v", "/dev:/dev", "--volume=/:/host", "--tls-verify=false", "-e", "A=b",
		"--env=A=b,c", "--entrypoint", "sh", "--memory=1g", "--", "image", "", "é", "$HOME", "$$", "a$", "${x}", "\\$x", "'a", "\"",
	}
	spaces = []string{
		" ", " ", " ", "  ", "\t", "\n", "\r\n", "\v", "\f", "\u00a0", "\u2003", "\u3000", "\x1c", "\x1f", "\u0085", "\u2028",
		"\u200b", "\ufeff", "\x00", "\x1b",
	}
)

func image() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 19).Draw(t, "odd") == 0 {
			return rapid.SampledFrom([]string{"", " ", "docker://", "oci://", "/", "*", "a b", "\n", "None"}).Draw(t, "image")
		}
		return rapid.SampledFrom(transports).Draw(t, "transport") + rapid.SampledFrom(hosts).Draw(t, "host") +
			rapid.SampledFrom(names[:3]).Draw(t, "name") + rapid.SampledFrom(tags).Draw(t, "tag")
	})
}

func optionString() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var b strings.Builder
		for range rapid.IntRange(0, 4).Draw(t, "words") {
			b.WriteString(rapid.SampledFrom(words).Draw(t, "word"))
			b.WriteString(rapid.SampledFrom(spaces).Draw(t, "space"))
		}
		return b.String()
	})
}

// scalarValue is a JSON value that is neither a list nor a mapping.
func scalarValue() *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		switch rapid.IntRange(0, 15).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return rapid.SampledFrom([]int64{0, 1, -1, 90, 1 << 53, -1 << 62}).Draw(t, "int")
		case 3:
			return rapid.SampledFrom([]float64{0.5, -1.25, 1e22, 1e16, 1.5e-7, 0.0001, 123456789.125}).Draw(t, "float")
		default:
			return optionString().Draw(t, "string")
		}
	})
}

// optionsValue is what a runbook may hold for pull_options or run_options.
func optionsValue() *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0, 1:
			return nil
		case 2:
			return scalarValue().Draw(t, "scalar")
		case 3:
			return map[string]any{}
		case 4:
			return map[string]any{optionString().Draw(t, "key"): scalarValue().Draw(t, "value")}
		case 5:
			return []any{[]any{scalarValue().Draw(t, "nested")}, scalarValue().Draw(t, "flat")}
		case 6, 7:
			return optionString().Draw(t, "string")
		default:
			list := []any{}
			for range rapid.IntRange(0, 3).Draw(t, "items") {
				list = append(list, scalarValue().Draw(t, "item"))
			}
			return list
		}
	})
}

// overrideValue is a value for one [container] option as a conductor may send it.
func overrideValue(key string) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		if rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
			return optionsValue().Draw(t, "value")
		}
		switch key {
		case "allow_arbitrary_containers":
			return rapid.SampledFrom([]any{true, false, false, "true", "no", "ON", "maybe", "", nil}).Draw(t, "bool")
		case "runner":
			return rapid.SampledFrom([]any{"podman", "docker", "nerdctl", "", nil}).Draw(t, "runner")
		case "allowed_containers":
			return images(t)
		default:
			return optionsValue().Draw(t, "options")
		}
	})
}

// images is a list of images, as a list or joined by commas.
func images(t *rapid.T) any {
	list := []any{}
	var texts []string
	for range rapid.IntRange(0, 4).Draw(t, "images") {
		s := image().Draw(t, "image")
		list = append(list, s)
		texts = append(texts, s)
	}
	if rapid.Bool().Draw(t, "joined") {
		return strings.Join(texts, rapid.SampledFrom([]string{",", ", ", " ,", ",,"}).Draw(t, "comma"))
	}
	return list
}

var overrideKeys = []string{
	"allow_arbitrary_containers", "allowed_containers", "runner", "pull_options", "run_options", "unknown_option",
}

// override is the conductor's agent_containers, nil for none.
func override() *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		m := map[string]any{}
		for _, key := range overrideKeys {
			if rapid.IntRange(0, 2).Draw(t, key) == 0 {
				m[key] = overrideValue(key).Draw(t, "value")
			}
		}
		return m
	})
}

// confValue is the text after the = of a [container] option in a file.
func confValue(key string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var v string
		switch key {
		case "allow_arbitrary_containers":
			v = rapid.SampledFrom([]string{"true", "false", "False", "1", "off", "yes", "", "maybe", "\"true\""}).Draw(t, "bool")
		case "runner":
			v = rapid.SampledFrom([]string{"podman", "docker", "\"podman\"", "crun"}).Draw(t, "runner")
		case "allowed_containers":
			var texts []string
			for range rapid.IntRange(0, 3).Draw(t, "images") {
				texts = append(texts, image().Draw(t, "image"))
			}
			v = strings.Join(texts, rapid.SampledFrom([]string{",", ", ", ",\n  ", ",,"}).Draw(t, "comma"))
		default:
			v = optionString().Draw(t, "options")
			if rapid.Bool().Draw(t, "comma") {
				v = strings.ReplaceAll(v, " ", ",")
			}
		}
		q := rapid.SampledFrom([]string{"", "", "\"", "'"}).Draw(t, "quote")
		return q + v + q
	})
}

// confFile is a configuration file of IPA, mostly well formed.
func confFile() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var b strings.Builder
		for range rapid.IntRange(0, 7).Draw(t, "lines") {
			var line string
			switch rapid.IntRange(0, 9).Draw(t, "line") {
			case 0:
				line = rapid.SampledFrom([]string{
					"", "# comment", "; comment", "[DEFAULT]", "[other]", "[container", "[]", "  continued", "nothing", "= x",
					"\tx", "key: value", "[container]  ", " # comment",
				}).Draw(t, "odd")
			case 1, 2:
				line = rapid.SampledFrom([]string{"[container]", "[Container]", "[CONTAINER]"}).Draw(t, "section")
			default:
				key := rapid.SampledFrom(overrideKeys).Draw(t, "key")
				if b.Len() == 0 {
					b.WriteString("[container]\n")
				}
				line = key + rapid.SampledFrom([]string{"=", " = ", ": ", ":", "\t=\t"}).Draw(t, "eq") +
					confValue(key).Draw(t, "value")
			}
			b.WriteString(line)
			b.WriteString(rapid.SampledFrom([]string{"\n", "\n", "\n", "\n\n", "\r\n", " \n"}).Draw(t, "end"))
		}
		return b.String()
	})
}

// scalarText is a YAML scalar, with those that YAML 1.1 and 1.2 tell apart.
func scalarText() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 2).Draw(t, "plain") > 0 {
			return rapid.SampledFrom([]string{
				"a", "tool", "0", "1", "10", "-5", "+3", "010", "0o10", "0x1F", "0b11", "1_000", "1:30", "22:22", "1.5", "1e3", "1.0e+3",
				".5", ".inf", "-.INF", ".nan", "1:30.5", "0_", "08", "_1", "true", "True", "yes", "No", "on", "OFF", "y", "n", "~", "null",
				"Null", "NULL", "nUll", "2001-01-01", "2001-13-01", "2001-1-1", "--rm", "- a", "a: b", "<<", "=", "a #b", "a#b",
				"registry.example/tool:1", "docker://tool", "--env=A=b", "1.", "0.0", "12e03", "1.e+5", "-0", "0x", "1__2",
				"99999999999999999999", "0777", "-010", "+0b1", "4.50", "é", "a\tb",
			}).Draw(t, "scalar")
		}
		s := optionString().Draw(t, "quoted")
		if rapid.Bool().Draw(t, "double") {
			return fmt.Sprintf("%q", strings.Map(yamlSafe, s))
		}
		return "'" + strings.ReplaceAll(strings.Map(yamlSafe, s), "'", "''") + "'"
	})
}

// yamlSafe keeps what may stand in a YAML stream on one line.
func yamlSafe(r rune) rune {
	if r < ' ' || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff {
		return ' '
	}
	return r
}

// yamlValue is a value in flow style.
func yamlValue() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0, 1, 2:
			var items []string
			for range rapid.IntRange(0, 3).Draw(t, "items") {
				items = append(items, scalarText().Draw(t, "item"))
			}
			return "[" + strings.Join(items, ", ") + "]"
		case 3:
			return "{" + scalarText().Draw(t, "key") + ": " + scalarText().Draw(t, "value") + "}"
		case 4:
			return ""
		default:
			return scalarText().Draw(t, "scalar")
		}
	})
}

// stepName draws names that are free, reserved, private, the conductor's or odd.
func stepName(t *rapid.T) string {
	if rapid.IntRange(0, 7).Draw(t, "free name") > 0 {
		return rapid.SampledFrom([]string{"a", "a", "a", "b", "c"}).Draw(t, "name")
	}
	return rapid.SampledFrom([]string{
		"a", "b", "c", "fw_update", "a", "erase_devices", "generic_container_step", "container_clean_step", "STEPS", "_x", "__init__",
		"get_clean_steps", "reboot", "evaluate_hardware_support", "a b", "'1'", "1", "true", "é",
	}).Draw(t, "name")
}

// tameOptions are options of a step that both sides can read.
func tameOptions(t *rapid.T) string {
	var items []string
	for range rapid.IntRange(0, 4).Draw(t, "items") {
		items = append(items, rapid.SampledFrom([]string{
			"--rm", "-e", "A=b", "\"--env  X=y\\t--z\"", "''", "'1:30'", "-v", "/dev:/dev", "é", "\"a\\u2003b\"", "1g", "10.0.0.1:5000/a:1",
			"\"010\"", "'yes'", "nUll", "--cpus=1.5",
		}).Draw(t, "item"))
	}
	if rapid.IntRange(0, 11).Draw(t, "ambiguous") == 0 {
		items = append(items, rapid.SampledFrom([]string{
			"1:30", "010", "0x1F", "1_000", "1.5", "1.0e+3", "yes", "Off", "~", "null", "y", "2001-01-01", ".inf", "0b11", "+3", "12:30:45",
			"0.10", "-0", "1e3", "0o17", "5", "true", "! 5", "!!str 5", "=", "08", "0_", "2001-13-01",
		}).Draw(t, "item"))
	}
	if rapid.Bool().Draw(t, "list") {
		return "[" + strings.Join(items, ", ") + "]"
	}
	return strings.Trim(strings.NewReplacer("\"", "", "'", "", "~", "", "\\t", " ", "\\u2003", "").Replace(strings.Join(items, " ")), " ")
}

// stepText is one step in flow or block style, mostly complete.
func stepText(t *rapid.T) string {
	type pair struct{ key, value string }
	tame := rapid.IntRange(0, 3).Draw(t, "tame") > 0
	// among draws one of the usual values, and rarely one that YAML 1.1 and 1.2 read differently.
	among := func(label string, usual []string, ambiguous ...string) string {
		if rapid.IntRange(0, 29).Draw(t, "ambiguous "+label) == 0 {
			return rapid.SampledFrom(ambiguous).Draw(t, label)
		}
		return rapid.SampledFrom(usual).Draw(t, label)
	}
	rare := func(label string, usual, odd string) string {
		if !tame && rapid.IntRange(0, 24).Draw(t, label) == 0 {
			return odd
		}
		return usual
	}
	odd := func() string { return yamlValue().Draw(t, "odd") }
	options := odd
	if tame {
		options = func() string { return tameOptions(t) }
	}
	pairs := []pair{
		{"name", rare("any name", rapid.SampledFrom([]string{"a", "a", "b"}).Draw(t, "usual name"), stepName(t))},
		{"image", rare("image", rapid.SampledFrom([]string{"tool", "docker://r.example/tool:1", "\"a b\""}).Draw(t, "image"), odd())},
		{"priority", rare("priority", among("priority", []string{"0", "10", "-1", "-0"}, "1:30", "010", "0x10", "1_0", "+3", "! 10"), odd())},
		{"interface", rare("interface", rapid.SampledFrom([]string{"deploy", "raid", "\"bios\""}).Draw(t, "interface"), odd())},
		{"reboot_requested", rare("reboot", among("reboot", []string{"true", "false", "TRUE"}, "no", "On", "! true", "!!bool true"), odd())},
		{"abortable", rare("abort", among("abort", []string{"true", "False"}, "yes", "OFF", "n"), odd())},
	}
	if rapid.Bool().Draw(t, "has pull") {
		pairs = append(pairs, pair{"pull_options", options()})
	}
	if rapid.Bool().Draw(t, "has run") {
		pairs = append(pairs, pair{"run_options", options()})
	}
	if rapid.IntRange(0, 9).Draw(t, "extra") == 0 {
		pairs = append(pairs, pair{"x_extra", odd()})
	}
	if !tame && rapid.IntRange(0, 14).Draw(t, "drop") == 0 {
		i := rapid.IntRange(0, len(pairs)-1).Draw(t, "dropped")
		pairs = append(pairs[:i], pairs[i+1:]...)
	}
	var lines []string
	for _, p := range pairs {
		lines = append(lines, p.key+": "+p.value)
	}
	anchor := rapid.IntRange(0, 9).Draw(t, "anchor") == 0
	if rapid.IntRange(0, 14).Draw(t, "block") == 0 {
		style := rapid.SampledFrom([]string{"|", ">-", "|2-", ">"}).Draw(t, "style")
		lines = append(lines, "run_options: "+style+"\n    --rm\n    -e  A=b\n\n    --x")
		return "- " + strings.Join(lines, "\n  ") + "\n"
	}
	if anchor {
		if rapid.Bool().Draw(t, "merge") {
			return "- &base\n  " + strings.Join(lines, "\n  ") + "\n- <<: *base\n  name: b\n"
		}
		return "- &base\n  " + strings.Join(lines, "\n  ") + "\n- *base\n"
	}
	if rapid.Bool().Draw(t, "flow") {
		return "- {" + strings.Join(lines, ", ") + "}\n"
	}
	return "- " + strings.Join(lines, "\n  ") + "\n"
}

// stepsFile is a steps file, mostly well formed.
func stepsFile() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 19).Draw(t, "odd") == 0 {
			return rapid.SampledFrom([]string{
				"", "\n", "# nothing\n", "---\n", "~\n", "[]\n", "{}\n", "steps:\n", "steps: {}\n", "steps: 5\n", "steps: a\n", "a\n",
				"steps: [a]\n", "steps: [~]\n", "other: 1\n", "steps: []\nsteps: []\n", "\tsteps: []\n", "steps: [\n", "---\n---\n",
				"steps: 0\n", "steps: ''\n", "%YAML 1.1\n---\nsteps: []\n", "steps: !!set {a, b}\n", "steps: !x []\n", "5: 6\n",
			}).Draw(t, "file")
		}
		var b strings.Builder
		b.WriteString("steps:\n")
		for range rapid.IntRange(0, 3).Draw(t, "steps") {
			b.WriteString(stepText(t))
		}
		return b.String()
	})
}

// mutate inserts, removes or doubles a few bytes of a text.
func mutate(t *rapid.T, s string) string {
	for range rapid.IntRange(1, 3).Draw(t, "mutations") {
		i := rapid.IntRange(0, len(s)).Draw(t, "at")
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			s = s[:i] + rapid.SampledFrom([]string{
				":", " ", "\n", "-", "{", "}", "[", "]", "\"", "'", "#", "&a ", "*a ", "!", "|", ">", "%", "@", "`", "?", ",", "\t", "~", "<<: ", "!!str ", "!!int ",
			}).Draw(t, "insert") + s[i:]
		case 1:
			if i < len(s) {
				s = s[:i] + s[i+1:]
			}
		default:
			j := rapid.IntRange(i, len(s)).Draw(t, "to")
			s = s[:j] + s[i:]
		}
	}
	return strings.ToValidUTF8(s, "?")
}
