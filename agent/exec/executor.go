package exec

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/agent/store"
)

// Executor owns the runs of an agent. Make one with [New], then call [Executor.Recover].
type Executor struct {
	cfg     Config
	store   *store.Store
	state   atomic.Pointer[machine.State]
	changed atomic.Pointer[chan struct{}] // closed when state is replaced
	figures atomic.Pointer[Figures]
	lives   sync.Map // of *life, by run id
	inbox   inbox
	pulls   pulls
	inputs  inputs
	mark    mark
	reboots chan Reboot

	// ctx ends when the agent lets go of its runs.
	ctx       context.Context //nolint:containedctx // the life of goroutines that outlive any call
	letGo     context.CancelFunc
	recovered chan struct{}
	// work are the goroutine that owns the runs, and those that pull and push beside it.
	work sync.WaitGroup
	// hurry is closed when there is no time left to wait between two pushes.
	hurry   chan struct{}
	hurried sync.Once
}

// life is what there is of a run beside its state: where readers wait.
type life struct {
	events *store.EventLog
	// done is closed in a final state, tidied once the run's files are in order too.
	done, tidied chan struct{}
	// readers counts who reads the output: its files stay in their place.
	readers atomic.Int32
	// cancel ends the present pull or create. Only the owner of the runs uses it.
	cancel context.CancelFunc
}

// New opens the store and starts the goroutine that owns the runs. It touches no
// container; the caller calls [Executor.Recover] next, and [Executor.Close] in the end. cfg
// comes from [Config.WithDefaults]. Errors are those of [store.Open].
func New(cfg Config) (*Executor, error) {
	st, err := store.Open(store.Config{RunDir: cfg.RunDir, StateDir: cfg.StateDir, Persistent: cfg.Persistent,
		KeepIDs: cfg.KeepIDs, Log: cfg.Log, Disk: cfg.Disk})
	if err != nil {
		return nil, err
	}
	ctx, letGo := context.WithCancel(context.Background())
	x := &Executor{cfg: cfg, store: st, ctx: ctx, letGo: letGo, recovered: make(chan struct{}),
		reboots: make(chan Reboot, 16), hurry: make(chan struct{})}
	x.inbox.ready = make(chan struct{}, 1)
	changed := make(chan struct{})
	x.changed.Store(&changed)
	x.state.Store(&machine.State{Config: cfg.machine()})
	x.figures.Store(newFigures())
	x.work.Go(x.own)
	return x, nil
}

// Close lets go of all runs without ending them, waits for everything that was begun, and
// closes the store. The containers go on.
func (x *Executor) Close() error {
	x.detach()
	x.work.Wait()
	return x.store.Close()
}

func (x *Executor) detach() {
	x.inbox.put(item{event: machine.Detach{}})
	x.letGo()
	x.inbox.close()
}

// own is the goroutine that owns the runs.
func (x *Executor) own() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	calls := 0
	o := &owner{Executor: x, calls: &calls}
	for {
		for _, it := range x.inbox.take() {
			if it.answer {
				calls--
			}
			o.handle(it)
		}
		if x.inbox.closed() && calls == 0 && x.inbox.empty() {
			return
		}
		timer.Reset(o.untilWake())
		select {
		case <-x.inbox.ready:
		case <-timer.C:
			o.retry()
			o.handle(item{event: machine.Tick{}})
		}
	}
}

// owner are the methods that only the goroutine that owns the runs calls.
type owner struct {
	*Executor
	calls *int
	// request is that of the event at hand, if it is a submission.
	request *api.RunRequest
	// justRecovered says that the event at hand ended recovery.
	justRecovered bool
	// retryAt is when records and audit lines that could not be written are tried again.
	retryAt time.Time
}

// retryEvery is how often writing is tried again.
const retryEvery = 5 * time.Second

func (o *owner) unwritten() bool {
	return o.store.Status().Unwritten > 0 || o.store.Audit.Status().Pending > 0
}

// retry writes what could not be written before.
func (o *owner) retry() {
	if !o.unwritten() || time.Now().Before(o.retryAt) {
		return
	}
	_ = o.store.Retry() // its status has the error
	_ = o.store.Audit.Retry()
	o.retryAt = time.Now().Add(retryEvery)
}

// untilWake returns how long to wait for the next tick.
func (o *owner) untilWake() time.Duration {
	wait := time.Hour
	if at := machine.Wake(*o.state.Load()); at > 0 {
		// The clock may be slower than the timer's.
		wait = max(at-o.cfg.Clock(), time.Millisecond)
	}
	if o.unwritten() {
		wait = min(wait, retryEvery)
	}
	return wait
}

// handle steps an event and all that follows from it, and answers a request.
func (o *owner) handle(it item) {
	if it.flush != nil {
		it.flush <- o.store.Flush()
	}
	if it.event == nil {
		return
	}
	o.request = it.request
	var reply machine.Reply
	for queue := []machine.Event{it.event}; len(queue) > 0; {
		out := o.step(queue[0])
		queue = queue[1:]
		if out.Reply != nil {
			reply = *out.Reply
		}
		queue = append(queue, o.effects(out.Effects)...)
		queue = append(queue, out.Then...)
	}
	if it.reply != nil {
		it.reply <- reply
	}
	if o.justRecovered { // and the runs that waited have their slots
		o.justRecovered = false
		close(o.recovered)
		if o.cfg.Push != nil {
			o.work.Go(o.deliver)
		}
	}
}

// step takes one event: decide, make durable, publish. Effects are the caller's.
func (o *owner) step(e machine.Event) machine.Output {
	now := machine.Now{Clock: o.cfg.Clock(), Wall: time.Now().UTC()}
	next, out := machine.Step(*o.state.Load(), e, now)
	if err := o.commit(out); err != nil && (out.Must || out.KeepRequest != "") {
		next, out = machine.Step(*o.state.Load(), machine.Unrecorded{Event: e, Err: err}, now)
		_ = o.commit(out) // what follows a failure is written when that is possible
	}
	o.publish(next, out)
	return out
}

// commit makes a step durable.
func (o *owner) commit(out machine.Output) error {
	if id := out.KeepRequest; id != "" {
		if err := o.store.Files(id).KeepRequest(o.request); err != nil {
			return err
		}
		o.cfg.Failpoint("agent.request-kept")
	}
	if len(out.Records) == 0 {
		return nil
	}
	final := concludes(out)
	if final {
		o.cfg.Failpoint("agent.before-final")
	}
	o.cfg.Failpoint("agent.before-record")
	err := o.store.Append(out.Records, out.Must)
	o.cfg.Failpoint("agent.after-record")
	if err != nil {
		o.cfg.Log.WithField("run", out.Records[0].Run.ID).WithError(err).Error("cannot record the run")
		if out.KeepRequest != "" {
			o.dropRequest(out.KeepRequest)
		}
		return err
	}
	if final {
		o.cfg.Failpoint("agent.after-final")
	}
	return nil
}

func concludes(out machine.Output) bool {
	for _, e := range out.Effects {
		if _, ok := e.(machine.Conclude); ok {
			return true
		}
	}
	return false
}

// publish shows a new state and its events to readers, and writes the log.
func (o *owner) publish(next machine.State, out machine.Output) {
	for _, e := range out.Entries {
		o.life(e.Run) // before a reader can find the run
	}
	o.state.Store(&next)
	changed := make(chan struct{})
	close(*o.changed.Swap(&changed))
	for _, e := range out.Entries {
		o.life(e.Run).events.Add(e)
	}
	for _, l := range out.Logs {
		entry := o.cfg.Log.WithField("run", l.Run).WithFields(l.Fields)
		if l.Err != nil {
			entry = entry.WithError(l.Err)
		}
		switch l.Level {
		case machine.LevelError:
			entry.Error(l.Text)
		case machine.LevelWarning:
			entry.Warn(l.Text)
		default:
			entry.Info(l.Text)
		}
	}
}

// find returns a run and its life, for a reader. The error has code not_found.
func (x *Executor) find(id string) (*machine.State, *machine.Run, *life, error) {
	s := x.state.Load()
	r := s.Find(id)
	l, ok := x.lives.Load(id)
	if r == nil || !ok { // never there, or being forgotten
		return nil, nil, nil, machine.NotFound(id)
	}
	return s, r, l.(*life), nil
}

// life returns the life of a run, made for a new run. Only the goroutine that owns the runs
// makes one; readers call find.
func (x *Executor) life(id string) *life {
	if l, ok := x.lives.Load(id); ok {
		return l.(*life)
	}
	l := &life{events: x.store.EventLog(id, 0), done: make(chan struct{}), tidied: make(chan struct{})}
	x.lives.Store(id, l)
	return l
}

// ask sends a request to the owner of the runs and waits for its reply.
func (x *Executor) ask(ctx context.Context, e machine.Event) (machine.Reply, error) {
	return x.askFor(ctx, item{event: e})
}

func (x *Executor) askFor(ctx context.Context, it item) (machine.Reply, error) {
	reply := make(chan machine.Reply, 1)
	it.reply = reply
	if !x.inbox.put(it) {
		return machine.Reply{}, errStopping
	}
	select {
	case r := <-reply:
		return r, r.Err
	case <-ctx.Done():
		return machine.Reply{}, ctx.Err()
	}
}

// errStopping refuses requests when the agent has let go of its runs.
var errStopping = &fault.Error{Code: fault.Unreachable, Op: "take a request", Reason: "the agent is stopping",
	Remedy: "Wait until it has been started again"}

// Drain takes no more runs and then, as configured, ends those there are or lets go of
// them for the next agent to adopt. Runs that wait stay on record, unless containers are
// to be stopped. shutdown says that the node goes down: then all are ended. It returns
// when that is done, or ctx's error; call [Executor.Close] after it.
func (x *Executor) Drain(ctx context.Context, shutdown bool) error {
	reply, err := x.ask(ctx, machine.Drain{Stop: x.cfg.StopOnDrain, Shutdown: shutdown})
	if err != nil && !errors.Is(err, errStopping) {
		return err
	}
	if err := x.waitFor(ctx, reply.Runs, false); err != nil {
		return err
	}
	if shutdown {
		x.pushRest(ctx)
	}
	x.detach()
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.work.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitFor waits for the end of runs, and for their files to be in order with tidied. A run
// whose container is stuck is not waited for.
func (x *Executor) waitFor(ctx context.Context, ids []string, tidied bool) error {
	for _, id := range ids {
		_, _, l, err := x.find(id)
		if err != nil {
			continue // forgotten meanwhile
		}
		stages := []chan struct{}{l.done}
		if tidied {
			stages = append(stages, l.tidied)
		}
		for _, stage := range stages {
			if r := x.state.Load().Find(id); r == nil || r.Stuck {
				break
			}
			select {
			case <-stage:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// Reboot is a container's wish that the node be rebooted, once its run has ended.
type Reboot struct {
	// Run is the id of the run, Reason what asked for it, in words.
	Run, Reason string
}

// Reboots hands out the wishes of containers for a reboot, also that of a run which ended
// under an earlier agent. A wish that is not received is still in the run's outcome and in
// health.
func (x *Executor) Reboots() <-chan Reboot { return x.reboots }

// PrepareReboot gets ready for a reboot that a container asked for: what waits ends with
// reboot_pending, what runs is waited for, and everything that is kept is written to stable
// storage. When it returns nil, close the executor and reboot. The error is ctx's, or says
// what is not stored.
func (x *Executor) PrepareReboot(ctx context.Context) error {
	reply, err := x.ask(ctx, machine.PrepareReboot{})
	if err == nil {
		err = x.waitFor(ctx, reply.Runs, true)
	}
	if err != nil {
		return err
	}
	x.pushRest(ctx)
	return x.Flush()
}

// Flush writes all records that are due, and the file system of the state directory. The
// error has code space, node or unreachable.
func (x *Executor) Flush() error {
	done := make(chan error, 1)
	if !x.inbox.put(item{flush: done}) {
		return errStopping
	}
	return <-done
}

var _ io.Closer = (*Executor)(nil)
