package agenttest

import (
	"fmt"
	"strings"

	"github.com/careen-project/careen/agent/api"
)

// Order is one order of an abort, a timeout and the container's exit, and the outcome of the
// run. The same table is played over a fake runtime and on the real one.
type Order struct {
	// Happens are the words abort, timeout and exit, in their order. With an
	// exclamation mark an abort is refused as a conflict: it came too late.
	Happens []string
	// Story are the states from running on, the outcome's code and the exit code.
	Story string
}

// Orders are all six orders of the three, with those of two of them and of each alone.
// The container does not obey its stop signal, and exits with code 9 when the test ends it.
var Orders = []Order{
	{[]string{"abort", "timeout", "exit"}, "running stopping aborted aborted exit=9"},
	{[]string{"abort", "exit", "timeout"}, "running stopping aborted aborted exit=9"},
	{[]string{"timeout", "abort", "exit"}, "running stopping timed_out timeout exit=9"},
	{[]string{"timeout", "exit", "abort!"}, "running stopping timed_out timeout exit=9"},
	{[]string{"exit", "abort!", "timeout"}, "running failed exit exit=9"},
	{[]string{"exit", "timeout", "abort!"}, "running failed exit exit=9"},
	{[]string{"abort", "exit"}, "running stopping aborted aborted exit=9"},
	{[]string{"exit", "abort!"}, "running failed exit exit=9"},
	{[]string{"timeout", "exit"}, "running stopping timed_out timeout exit=9"},
	{[]string{"exit", "timeout"}, "running failed exit exit=9"},
	// The container does not exit: SIGKILL comes after the grace.
	{[]string{"abort", "timeout"}, "running stopping aborted aborted exit=137"},
	{[]string{"timeout", "abort"}, "running stopping timed_out timeout exit=137"},
	{[]string{"abort"}, "running stopping aborted aborted exit=137"},
	{[]string{"timeout"}, "running stopping timed_out timeout exit=137"},
	{[]string{"exit"}, "running failed exit exit=9"},
}

// Story tells of a run that has ended what [Order] says of one.
func Story(events []api.Event, run api.Run) string {
	var words []string
	for _, e := range events {
		if e.Type == "state" && (len(words) > 0 || e.State == api.Running) {
			words = append(words, string(e.State))
		}
	}
	if run.Outcome.Code != "" {
		words = append(words, run.Outcome.Code)
	}
	if run.Outcome.ExitCode != nil {
		words = append(words, fmt.Sprintf("exit=%d", *run.Outcome.ExitCode))
	}
	return strings.Join(words, " ")
}
