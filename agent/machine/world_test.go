package machine_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/runtime/container"
)

// world is all that a machine acts on, as a model: containers that do what a script says,
// a disk that may be full, and a clock. It prints what happens.
type world struct {
	state machine.State
	cfg   machine.Config
	now   time.Duration
	out   strings.Builder
	quiet bool

	// disk are the durable records, by run, in order.
	disk  map[string]machine.Record
	order []string
	full  bool
	late  map[string]machine.Record // to be written when there is room
	mark  *machine.Mark

	containers map[string]*box
	next       int
	// starts counts starts of each container, ended the outcomes that were told.
	starts map[string]int
	ended  map[string]string
	acked  map[string]bool
	// hold are effects that a script answers itself: pull, create, start.
	hold map[string]bool
	// held are the answers to them that wait.
	held map[string]machine.Event
	// What containers do: deaf to the stop signal, unkillable, their critical section.
	deaf, unkillable map[string]bool
	claims           map[string]time.Duration
	claimed          map[string]*machine.Claim
	result           map[string]string
	plans            map[string]*machine.Plan
	waits            map[string]machine.Wait
}

// box is a container.
type box struct {
	container.Existing
	unseen bool
}

const boot = time.Hour

func newWorld() *world {
	w := &world{cfg: machine.Config{BootID: "boot-1", Slots: 1, QueueLimit: 2, Grace: 10 * time.Second, StuckAfter: 30 * time.Second,
		PullStall: 10 * time.Minute, CriticalMax: 30 * time.Minute, LostAfter: 30 * time.Second, KeepRuns: 100, KeepLogs: 10, KeepBytes: 1 << 20},
		disk: map[string]machine.Record{}, late: map[string]machine.Record{}, containers: map[string]*box{}, starts: map[string]int{}, ended: map[string]string{},
		acked: map[string]bool{}, hold: map[string]bool{}, held: map[string]machine.Event{}, deaf: map[string]bool{},
		unkillable: map[string]bool{}, claims: map[string]time.Duration{}, claimed: map[string]*machine.Claim{},
		result: map[string]string{}, plans: map[string]*machine.Plan{}, waits: map[string]machine.Wait{}}
	w.state = machine.State{Config: w.cfg}
	w.step(machine.Load{})
	w.out.Reset()
	return w
}

// crash forgets all that is not durable, and recovers. With reboot the containers are gone.
func (w *world) crash(reboot bool) {
	load := machine.Load{Plans: map[string]machine.PlanOrError{}, Mark: w.mark}
	if reboot {
		w.cfg.BootID += "+"
		w.containers = map[string]*box{}
	}
	for _, id := range w.order {
		rec, ok := w.disk[id]
		if !ok {
			continue
		}
		load.Records = append(load.Records, rec)
		load.Plans[id] = machine.PlanOrError{Plan: w.plans[id]}
	}
	for _, c := range w.containers {
		e := c.Existing
		if c.unseen {
			e.Exit = nil
		}
		load.Existing = append(load.Existing, e)
	}
	w.held, w.waits, w.hold = map[string]machine.Event{}, map[string]machine.Wait{}, map[string]bool{}
	w.state = machine.State{Config: w.cfg}
	w.step(load)
}

func (w *world) print(format string, args ...any) {
	if !w.quiet {
		fmt.Fprintf(&w.out, "    "+format+"\n", args...)
	}
}

// step gives the machine an event and all that follows at once.
func (w *world) step(e machine.Event) {
	for queue := []machine.Event{e}; len(queue) > 0; {
		now := machine.Now{Clock: boot + w.now, Wall: time.Unix(0, 0).UTC().Add(w.now)}
		next, out := machine.Step(w.state, queue[0], now)
		if w.full && len(out.Records) > 0 {
			w.print("disk full")
			if out.Must {
				err := &fault.Error{Code: fault.Space, Op: "write the journal", Reason: "no space left"}
				next, out = machine.Step(w.state, machine.Unrecorded{Event: queue[0], Err: err}, now)
			}
		}
		queue = queue[1:]
		w.record(out)
		w.state = next
		for _, e := range out.Entries {
			w.entry(e)
		}
		if out.Reply != nil {
			w.reply(*out.Reply)
		}
		for _, effect := range out.Effects {
			if answer := w.effect(effect); answer != nil {
				queue = append(queue, answer)
			}
		}
		queue = append(queue, out.Then...)
	}
}

func (w *world) record(out machine.Output) {
	if w.full {
		for _, rec := range out.Records {
			w.late[rec.Run.ID] = rec
		}
		return
	}
	for _, rec := range out.Records {
		id := rec.Run.ID
		if _, ok := w.disk[id]; !ok {
			w.order = append(w.order, id)
		}
		w.disk[id] = rec
		text := string(rec.Run.State)
		if rec.Starting && rec.Exit == nil && !rec.Run.State.Final() {
			text += ", may have started"
		}
		if rec.Exit != nil {
			text += fmt.Sprintf(", exit %d", rec.Exit.Code)
		}
		if rec.Stop != nil {
			text += ", stop " + string(rec.Stop.Cause)
		}
		first := ""
		if out.Must {
			first = " first"
		}
		w.print("record%s %s: %s", first, id, text)
	}
}

func (w *world) entry(e machine.Entry) {
	switch e.Type {
	case "state":
		text := fmt.Sprintf("%s is %s", e.Run, e.State)
		if o := e.Outcome; o != nil {
			if o.Code != "" {
				text += " " + o.Code
			}
			if o.ExitCode != nil {
				text += " exit=" + strconv.Itoa(*o.ExitCode)
			}
			if o.RebootRequested {
				text += " reboot"
			}
		}
		w.print("%s", text)
	case "policy", "result", "pull":
	default:
		w.print("%s: %s", e.Type, e.Message)
	}
}

func (w *world) reply(r machine.Reply) {
	switch {
	case r.Err != nil:
		w.print("reply %s: %v", fault.CodeOf(r.Err), r.Err)
	case r.New:
		w.acked[r.ID] = true
		w.print("reply accepted")
	default:
		w.print("reply")
	}
}

// effect carries out an effect, and returns the answer if it has one now.
func (w *world) effect(e machine.Effect) machine.Event {
	switch e := e.(type) {
	case machine.Pull:
		w.print("→ pull %s", e.Part.Image)
		w.next++
		return w.maybe("pull", e.ID, machine.Pulled{ID: e.ID, Call: e.Call, ContainerID: fmt.Sprintf("c%d", w.next),
			Image: container.ImageInfo{Digest: "sha256:feed"}})
	case machine.Create:
		w.print("→ create %s", e.Spec.ID)
		w.containers[e.Spec.ID] = &box{Existing: container.Existing{Container: e.Spec.Container, State: container.StateCreated}}
		return w.maybe("create", e.ID, machine.Created{ID: e.ID, Call: e.Call})
	case machine.Cancel:
		w.print("→ cancel")
		for _, what := range []string{"pull", "create"} {
			if answer, ok := w.held[what+e.ID]; ok {
				delete(w.held, what+e.ID)
				return failed(answer, errors.New("canceled"))
			}
		}
	case machine.Start:
		return w.start(e)
	case machine.Wait:
		w.waits[e.ID] = e
		return w.exited(e.ID)
	case machine.Observe:
		return w.observe(e)
	case machine.Signal:
		w.print("→ %v all=%v", e.Signal, e.All)
		kill := e.Signal == syscall.SIGKILL
		if c := w.containers[e.Container.ID]; c != nil && !(kill && w.unkillable[e.ID]) && !(!kill && w.deaf[e.ID]) {
			w.end(e.ID, container.Exit{Code: 128 + int(e.Signal), Signal: int(e.Signal)})
			return w.exited(e.ID)
		}
	case machine.ReadEnd:
		return machine.EndRead{ID: e.ID, Call: e.Call, End: machine.End{Result: []byte(w.result[e.ID])}}
	case machine.Remove:
		w.print("→ remove %s", e.Container.ID)
		delete(w.containers, e.Container.ID)
		return machine.Deleted{ID: e.ID, Call: e.Call}
	case machine.RemoveLeft:
		return w.removeLeft(e)
	default:
		return w.afterEnd(e)
	}
	return nil
}

func (w *world) afterEnd(e machine.Effect) machine.Event {
	switch e := e.(type) {
	case machine.KeepLog:
		return machine.LogKept{ID: e.ID}
	case machine.Conclude:
		r := w.state.Find(e.ID)
		told := fmt.Sprint(r.Run.State, r.Run.Outcome.Code)
		if before, ok := w.ended[e.ID]; ok && before != told {
			panic(fmt.Sprintf("run %s ended as %s, and now as %s", e.ID, before, told))
		}
		w.ended[e.ID] = told
	case machine.Audit:
		return machine.Audited{ID: e.ID}
	case machine.Tidy:
		return machine.Tidied{ID: e.ID, LogBytes: 1}
	case machine.RemoveOutput:
		return machine.OutputRemoved{ID: e.ID}
	case machine.Forget:
		w.print("→ forget %s", e.ID)
		delete(w.disk, e.ID)
		delete(w.late, e.ID)
		w.order = slices.DeleteFunc(w.order, func(id string) bool { return id == e.ID })
		delete(w.ended, e.ID) // its id is free
		return machine.Forgotten{ID: e.ID}
	case machine.ClearMark:
		w.mark = nil
		return machine.MarkCleared{ID: e.ID}
	case machine.RequestReboot:
		w.print("→ reboot wished: %s", e.Reason)
	}
	return nil
}

// maybe returns an answer, or keeps it for the script.
func (w *world) maybe(what, id string, answer machine.Event) machine.Event {
	if !w.hold[what] {
		return answer
	}
	w.held[what+id] = answer
	return nil
}

// failed returns an answer with an error.
func failed(answer machine.Event, err error) machine.Event {
	switch a := answer.(type) {
	case machine.Pulled:
		a.Err = err
		return a
	case machine.Created:
		a.Err = err
		return a
	case machine.Started:
		a.Err = err
		return a
	}
	return answer
}

func (w *world) start(e machine.Start) machine.Event {
	w.print("→ start %s", e.Container.ID)
	w.mark = e.Mark
	c := w.containers[e.Container.ID]
	if c == nil || c.State != container.StateCreated {
		return machine.Started{ID: e.ID, Call: e.Call, Marked: true, Err: errors.New("the container was started before")}
	}
	c.State, c.Pid = container.StateRunning, 42
	if w.starts[c.ID]++; w.starts[c.ID] > 1 {
		panic("container " + c.ID + " was started twice")
	}
	return w.maybe("start", e.ID, machine.Started{ID: e.ID, Call: e.Call, Pid: 42, Marked: true})
}

// end ends the present container of a run.
func (w *world) end(id string, exit container.Exit) {
	for _, c := range w.containers {
		if c.Run == id && c.State == container.StateRunning {
			exit.ExitedAt, exit.Ran = time.Unix(0, 0).UTC().Add(w.now), time.Second
			c.State, c.Exit = container.StateStopped, &exit
		}
	}
}

// exited answers a wait, if the container has ended or is gone.
func (w *world) exited(id string) machine.Event {
	e, ok := w.waits[id]
	if !ok {
		return nil
	}
	answer := machine.Exited{ID: id, Call: e.Call}
	switch c := w.containers[e.Container.ID]; {
	case c == nil || c.unseen:
		answer.Err = &fault.Error{Code: fault.Lost, Op: "wait", Reason: "its end was not seen"}
	case c.State == container.StateStopped:
		answer.Exit = *c.Exit
	default:
		return nil
	}
	delete(w.waits, id)
	return answer
}

func (w *world) observe(e machine.Observe) machine.Event {
	seen := machine.Observed{ID: e.ID}
	if e.Survivors > 0 {
		seen.Survivors = ": process 42 in state D"
	}
	length, ok := w.claims[e.ID]
	switch {
	case !ok:
		delete(w.claimed, e.ID)
	case w.claimed[e.ID] == nil:
		since := boot + w.now
		w.claimed[e.ID] = &machine.Claim{Since: since, Until: since + min(length, w.cfg.CriticalMax)}
	}
	seen.Claim = w.claimed[e.ID]
	return seen
}

func (w *world) removeLeft(e machine.RemoveLeft) machine.Event {
	c := e.Container
	w.print("→ remove what is left: %s", c.ID)
	if w.unkillable[c.Run] {
		if e.Retry {
			return nil
		}
		return machine.Removed{ID: c.ID, Err: errors.New("it is still there")}
	}
	delete(w.containers, c.ID)
	return machine.Removed{ID: c.ID}
}

// until lets time pass, with each tick that is due.
func (w *world) until(at time.Duration) {
	for {
		wake := machine.Wake(w.state) - boot
		if wake <= -boot || wake > at {
			break
		}
		w.now = max(w.now, wake)
		w.step(machine.Tick{})
	}
	w.now = at
}

// request makes a submission from words such as parts=2, timeout=5s and critical.
func (w *world) request(id string, words []string) machine.Submit {
	parts := 1
	rec := machine.Record{Hash: strings.Join(words, " "), Accepted: boot + w.now,
		Run: machine.Info{ID: id, State: machine.Queued, Image: "image", Abortable: true, BootID: w.cfg.BootID}}
	part := policy.Part{Image: "image", Entry: "test"}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		d, _ := time.ParseDuration(value)
		n, _ := strconv.Atoi(value)
		switch key {
		case "parts":
			parts = n
		case "timeout":
			rec.Timeout = d
		case "silence":
			part.SilenceTimeout = d
		case "ptimeout":
			part.Timeout = d
		case "critical":
			part.Critical = true
		case "noabort":
			rec.Run.Abortable = false
		case "reboot":
			part.RebootExitCodes = []int{n}
		case "result":
			w.result[id] = value
		case "deaf":
			w.deaf[id] = true
		case "unkillable":
			w.unkillable[id] = true
		default:
			panic("unknown word " + word)
		}
	}
	plan := &machine.Plan{}
	for i := range parts {
		p := part
		if parts > 1 {
			p.Image = fmt.Sprintf("image%d", i+1)
			rec.Run.Parts = parts
		}
		plan.Parts = append(plan.Parts, p)
	}
	if w.plans[id] == nil {
		w.plans[id] = plan
	}
	return machine.Submit{Record: rec, Plan: plan}
}
