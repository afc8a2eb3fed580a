package machine_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/runtime/container"
)

var rewrite = flag.Bool("rewrite", false, "write what the machine does into testdata/*.txt")

// A transcript has scenarios, each with a heading "## name", lines "TIME WORDS" that
// happen, and indented lines that the machine answers with. An arrow is an effect.

type scenario struct {
	name  string
	lines []string // what happens
	text  string   // with what the machine did
}

func parse(text string) (head string, all []*scenario) {
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		switch {
		case strings.HasPrefix(line, "## "):
			all = append(all, &scenario{name: line[3:], text: line + "\n"})
		case len(all) == 0:
			head += line + "\n"
		default:
			s := all[len(all)-1]
			s.text += line + "\n"
			if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "    ") {
				s.lines = append(s.lines, line)
			}
		}
	}
	return head, all
}

// act makes one line happen.
func (w *world) act(line string) {
	words := strings.Fields(line)
	at, err := time.ParseDuration(words[0])
	if err != nil {
		panic(line)
	}
	w.until(at)
	w.out.WriteString(line + "\n")
	id := ""
	if len(words) > 2 {
		id = words[2]
	}
	rest := words[min(3, len(words)):]
	switch words[1] {
	case "submit":
		w.step(w.request(id, rest))
	case "hold":
		w.hold[id] = true
	case "pulled", "created", "started":
		w.answer(map[string]string{"pulled": "pull", "created": "create", "started": "start"}[words[1]], id, rest)
	case "exit":
		code, _ := strconv.Atoi(rest[0])
		exit := container.Exit{Code: code}
		for _, word := range rest[1:] {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "signal":
				exit.Signal, _ = strconv.Atoi(value)
			case "reboot":
				exit.Reboot = value
			case "oom":
				exit.OOMKilled = true
			}
		}
		w.end(id, exit)
		w.maybeStep(w.exited(id))
	case "unseen":
		for _, c := range w.containers {
			if c.Run == id {
				c.unseen = true
			}
		}
		w.maybeStep(w.exited(id))
	case "claim":
		w.claims[id], _ = time.ParseDuration(rest[0])
	case "unclaim":
		delete(w.claims, id)
	case "abort":
		e := machine.Abort{ID: id}
		for _, word := range rest {
			if word == "force" {
				e.Force = true
			} else {
				e.Grace, _ = time.ParseDuration(word)
			}
		}
		w.step(e)
	case "drain":
		w.step(machine.Drain{Stop: id == "stop", Shutdown: id == "shutdown"})
	case "delete":
		w.step(machine.Delete{ID: id})
	case "full":
		w.full = true
	case "room":
		w.full = false
		var late []machine.Record
		for _, id := range slices.Sorted(maps.Keys(w.late)) {
			late = append(late, w.late[id])
		}
		w.record(machine.Output{Records: late})
		w.late = map[string]machine.Record{}
	case "crash", "reboot":
		if !w.full { // else what was told and not written is lost, which no one can help
			w.crash(words[1] == "reboot")
		}
	case "wait":
	default:
		panic("unknown word in " + line)
	}
}

func (w *world) maybeStep(e machine.Event) {
	if e != nil {
		w.step(e)
	}
}

func (w *world) answer(what, id string, rest []string) {
	answer := w.held[what+id]
	delete(w.held, what+id)
	if len(rest) > 0 {
		answer = failed(answer, &fault.Error{Code: fault.Code(rest[0]), Op: what, Err: errors.New("the script says so")})
	}
	w.maybeStep(answer)
}

// TestTranscripts plays testdata/*.txt. Run it with -rewrite to write what the machine does
// now, and read the difference.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		head, all := parse(string(data))
		text := head
		for _, s := range all {
			w := newWorld()
			for _, line := range s.lines {
				w.act(line)
			}
			got := "## " + s.name + "\n" + w.out.String() + "\n"
			text += got
			if !*rewrite {
				require.Equal(t, strings.TrimSpace(s.text), strings.TrimSpace(got), "%s: %s", path, s.name)
			}
		}
		if *rewrite {
			require.NoError(t, os.WriteFile(path, []byte(strings.TrimSpace(text)+"\n"), 0o644))
		}
	}
}

// TestACrashAfterAnyStep plays each prefix of each transcript and crashes there: with the
// containers still on the node, with none of them, and with a reboot. Every acknowledged
// run ends, no container starts twice, and an outcome that was told stays.
func TestACrashAfterAnyStep(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		_, all := parse(string(data))
		for _, s := range all {
			for n := 1; n <= len(s.lines); n++ {
				for _, how := range []string{"crash", "gone", "reboot"} {
					crashAfter(t, s, n, how)
				}
			}
		}
	}
}

func crashAfter(t *testing.T, s *scenario, n int, how string) {
	if n < 0 {
		n = len(s.lines)
	}
	what := fmt.Sprintf("%s, %s after %q", s.name, how, s.lines[:n])
	w := newWorld()
	defer func() {
		if t.Failed() || recover() != nil {
			t.Fatalf("%s\n%s", what, w.out.String())
		}
	}()
	for _, line := range s.lines[:n] {
		w.act(line)
	}
	if w.full {
		return // an acknowledged run is on record; what comes after may not be
	}
	if how == "gone" {
		w.containers = map[string]*box{}
	}
	w.unkillable, w.deaf, w.claims = map[string]bool{}, map[string]bool{}, map[string]time.Duration{}
	w.crash(how == "reboot")
	// Containers that still run end an hour later.
	w.until(w.now + time.Hour)
	for range 10 {
		for _, r := range w.state.Runs {
			w.end(r.Run.ID, container.Exit{})
			w.maybeStep(w.exited(r.Run.ID))
		}
		w.until(w.now + time.Hour)
	}
	for id := range w.acked {
		rec, ok := w.disk[id]
		if !ok {
			continue // deleted
		}
		if w.state.RebootBy != "" || len(w.state.Unremoved) > 0 {
			continue
		}
		require.True(t, rec.Run.State.Final(), "%s: run %s stays %s", what, id, rec.Run.State)
		require.NotNil(t, rec.Run.Outcome, what)
		require.NotEqual(t, string(fault.Internal), rec.Run.Outcome.Code, "%s: %s", what, rec.Run.Outcome.Message)
	}
	require.Empty(t, w.containers, "%s: containers are left", what)
}

// TestRandomWalks draws what happens, with crashes and reboots in between, and checks what
// [TestACrashAfterAnyStep] does. A failure names the seed and what happened.
func TestRandomWalks(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CAREEN_TEST_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	walks := 500
	if testing.Short() {
		walks = 100
	}
	if text := os.Getenv("CAREEN_TEST_WALKS"); text != "" {
		walks, _ = strconv.Atoi(text)
	}
	t.Logf("%d walks from CAREEN_TEST_SEED=%d", walks, seed)
	dice := rand.New(rand.NewPCG(seed, 1))
	for range walks {
		crashAfter(t, draw(dice), -1, []string{"crash", "gone", "reboot"}[dice.IntN(3)])
	}
}

// draw makes a scenario of lines in the order of time.
func draw(dice *rand.Rand) *scenario {
	s := &scenario{name: "drawn"}
	words := []string{"submit a", "submit b parts=2", "submit c timeout=20s", "submit d deaf", "submit e deaf unkillable silence=30s",
		"submit f critical", "submit g noabort reboot=3", "hold pull", "hold create", "hold start", "abort a", "abort b 1s", "abort c",
		"abort d force", "abort e", "abort f", "abort g force", "exit a 0", "exit b 0", "exit b 3", "exit c 1", "exit d 0", "exit e 137",
		"exit f 0", "exit g 3", "pulled a", "pulled b network", "created a", "created c node", "started a", "started b command_absent",
		"claim a 60s", "claim c 5s", "unclaim a", "unseen a", "unseen c", "delete a", "delete g", "full", "room", "crash", "crash", "reboot",
		"wait", "drain", "drain stop"}
	at := 0
	for range 5 + dice.IntN(30) {
		at += dice.IntN(15)
		s.lines = append(s.lines, fmt.Sprintf("%ds %s", at, words[dice.IntN(len(words))]))
	}
	s.lines = append(s.lines, fmt.Sprintf("%ds room", at+1))
	return s
}
