package oci

// CanonicalRun returns options of podman run as one "--long=value" each, sorted by
// name, so that "-v /a:/b" and "--volume=/a:/b" are the same text. Policy rules compare
// options in this form. The error is an [Errors] with the codes [fault.BadOption],
// [fault.Unsupported] and [fault.BadRequest]: unknown options and words that are not
// options.
func CanonicalRun(words []string) ([]string, error) { return canonical(OnRun, words) }

// CanonicalPull is [CanonicalRun] for options of podman pull.
func CanonicalPull(words []string) ([]string, error) { return canonical(OnPull, words) }

func canonical(command Command, words []string) ([]string, error) {
	s := scan(command, words)
	refuseRest(s)
	if err := s.errs.err(); err != nil {
		return nil, err
	}
	var out []string
	for _, option := range optionTable {
		if option.On&command == 0 {
			continue
		}
		for _, use := range s.uses[option.Name] {
			out = append(out, "--"+option.Name+"="+use.value)
		}
	}
	return out, nil
}
