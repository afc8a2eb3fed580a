package agenttest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/container"
)

// Script is what a container does.
type Script struct {
	// Pull and Create are how long those take; PullErr, CreateErr and StartErr are the
	// codes that they fail with.
	Pull, Create                 time.Duration
	PullErr, CreateErr, StartErr fault.Code
	// PullSilent makes the pull report no bytes.
	PullSilent bool
	// Run is how long the container runs, negative for ever, and Exit how it ends.
	Run  time.Duration
	Exit container.Exit
	// Term and Kill are what the signals do.
	Term, Kill Act
	// Grace and ProcessTimeout are what Create returns.
	Grace, ProcessTimeout time.Duration
	// Result and Critical are the contents of those files, "" for none.
	Result, Critical string
	Output           []string
	Warnings         []string
	Leftovers        []string
	// EndWithInput ends the container when its input does.
	EndWithInput bool
}

// Act is what a container does on a signal.
type Act struct {
	Ignore bool
	After  time.Duration
	// Code is the exit code; negative is death by the signal.
	Code int
}

// ParseScript reads a script of words with a slash between them, so that it can
// stand where an image's name does: "pull=2s/run=10s/exit=3/term=ignore". Words
// without a value that it does not know are a name, and mean nothing.
func ParseScript(text string) (Script, error) {
	s := Script{Term: Act{Code: -1}, Kill: Act{Code: -1}}
	for word := range strings.SplitSeq(text, "/") {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			continue
		}
		if err := s.set(key, value); err != nil {
			return s, fmt.Errorf("bad script %q: %s: %w", text, word, err)
		}
	}
	return s, nil
}

func (s *Script) set(key, value string) (err error) {
	duration := func(d *time.Duration) {
		if value == "forever" {
			*d = -1
			return
		}
		*d, err = time.ParseDuration(value)
	}
	switch key {
	case "pull":
		duration(&s.Pull)
	case "create":
		duration(&s.Create)
	case "run":
		duration(&s.Run)
	case "grace":
		duration(&s.Grace)
	case "ptimeout":
		duration(&s.ProcessTimeout)
	case "pullsilent":
		s.PullSilent = true
	case "pullerr":
		s.PullErr = fault.Code(value)
	case "createerr":
		s.CreateErr = fault.Code(value)
	case "starterr":
		s.StartErr = fault.Code(value)
	case "exit":
		s.Exit.Code, err = strconv.Atoi(value)
	case "signal":
		s.Exit.Signal, err = strconv.Atoi(value)
		s.Exit.Code = 128 + s.Exit.Signal
	case "oom":
		s.Exit.OOMKilled = true
	case "reboot":
		s.Exit.Reboot = value
	case "term":
		s.Term, err = parseAct(value)
	case "kill":
		s.Kill, err = parseAct(value)
	case "result":
		s.Result = value
	case "critical":
		s.Critical = value
	case "out":
		s.Output = append(s.Output, value)
	case "warn":
		s.Warnings = append(s.Warnings, value)
	case "left":
		s.Leftovers = append(s.Leftovers, value)
	case "echo":
		s.EndWithInput = true
	default:
		err = fmt.Errorf("unknown word")
	}
	return err
}

// parseAct reads "ignore", a duration, or a duration and a code: "2s:0".
func parseAct(text string) (Act, error) {
	if text == "ignore" {
		return Act{Ignore: true}, nil
	}
	after, code, ok := strings.Cut(text, ":")
	act := Act{Code: -1}
	var err error
	if act.After, err = time.ParseDuration(after); err == nil && ok {
		act.Code, err = strconv.Atoi(code)
	}
	return act, err
}
