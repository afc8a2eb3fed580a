package agent

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// metrics are the agent's figures since it was started. The agent's lock guards
// them. They are written in Prometheus' text format by hand: a dozen figures do
// not need a registry, and this package stays free of one.
type metrics struct {
	refusedMu sync.Mutex // guards refusals, which also count before there is a run
	started   int64
	aborts    int64
	runs      map[[2]string]int64 // by state and code
	refusals  map[string]int64    // by code
	phases    map[string]*histogram
	bytes     int64
	peerBytes int64
	retries   int64
	pulls     int64
}

// buckets are the upper bounds of durations in seconds: a warm start takes a
// second, a disk wipe half a day.
var buckets = []float64{0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43200}

type histogram struct {
	counts []int64
	sum    float64
	n      int64
}

func newMetrics() *metrics {
	return &metrics{runs: map[[2]string]int64{}, refusals: map[string]int64{}, phases: map[string]*histogram{}}
}

func (m *metrics) ended(rec *record) {
	m.runs[[2]string{string(rec.Run.State), rec.Run.Outcome.Code}]++
	for phase, d := range rec.Phases {
		h := m.phases[phase]
		if h == nil {
			h = &histogram{counts: make([]int64, len(buckets))}
			m.phases[phase] = h
		}
		h.observe(d)
	}
}

func (h *histogram) observe(d time.Duration) {
	s := d.Seconds()
	h.sum += s
	h.n++
	for i, upper := range buckets {
		if s <= upper {
			h.counts[i]++
		}
	}
}

// pulled adds what a finished pull transferred.
func (m *metrics) pulled(p *api.PullProgress) {
	m.pulls++
	if p != nil {
		m.bytes += p.Done
		m.peerBytes += p.FromPeers
		m.retries += int64(p.Retries)
	}
}

// refusal counts a request that did not become a run. The agent's lock may be held
// or not.
func (m *metrics) refusal(code fault.Code) {
	m.refusedMu.Lock()
	defer m.refusedMu.Unlock()
	m.refusals[string(code)]++
}

// WriteMetrics writes the agent's figures in Prometheus' text format.
func (a *Agent) WriteMetrics(w io.Writer) error {
	out := &metricsWriter{w: bufio.NewWriter(w)}
	a.mu.Lock()
	a.runMetrics(out)
	a.mu.Unlock()
	a.processMetrics(out)
	if a.cfg.Gauges != nil {
		for _, g := range a.cfg.Gauges() {
			kind := "gauge"
			if g.Counter {
				kind = "counter"
			}
			out.head(g.Name, kind, g.Help)
			out.line(g.Name, "", g.Value)
		}
	}
	return out.w.Flush()
}

func (a *Agent) runMetrics(out *metricsWriter) {
	m := a.metrics
	out.head("careen_runs_total", "counter", "Runs that ended, by final state and code.")
	for _, k := range slices.SortedFunc(maps.Keys(m.runs), func(x, y [2]string) int { return strings.Compare(x[0]+x[1], y[0]+y[1]) }) {
		out.line("careen_runs_total", labels("state", k[0], "code", k[1]), float64(m.runs[k]))
	}
	out.head("careen_run_phase_seconds", "histogram", "Time that ended runs spent in each phase.")
	for _, phase := range slices.Sorted(maps.Keys(m.phases)) {
		h := m.phases[phase]
		for i, upper := range buckets {
			out.line("careen_run_phase_seconds_bucket", labels("phase", phase, "le", strconv.FormatFloat(upper, 'g', -1, 64)), float64(h.counts[i]))
		}
		out.line("careen_run_phase_seconds_bucket", labels("phase", phase, "le", "+Inf"), float64(h.n))
		out.line("careen_run_phase_seconds_sum", labels("phase", phase), h.sum)
		out.line("careen_run_phase_seconds_count", labels("phase", phase), float64(h.n))
	}
	m.refusedMu.Lock()
	out.head("careen_requests_refused_total", "counter", "Requests for runs that were refused, by code.")
	for _, code := range slices.Sorted(maps.Keys(m.refusals)) {
		out.line("careen_requests_refused_total", labels("code", code), float64(m.refusals[code]))
	}
	m.refusedMu.Unlock()
	if a.cfg.Push != nil {
		out.head("careen_pushes_total", "counter", "Bundles of runs that were pushed, by result.")
		for _, result := range []string{"delivered", "failed"} {
			out.line("careen_pushes_total", labels("result", result), float64(a.pushes.done[result]))
		}
	}
	reboot := 0.0
	if a.rebootBy != "" {
		reboot = 1
	}
	for _, f := range []struct {
		name, kind, help string
		value            float64
	}{
		{"careen_containers_started_total", "counter", "Containers started.", float64(m.started)},
		{"careen_aborts_total", "counter", "Requests to abort a run.", float64(m.aborts)},
		{"careen_pulls_total", "counter", "Pulls that succeeded.", float64(m.pulls)},
		{"careen_pull_bytes_total", "counter", "Compressed bytes pulled.", float64(m.bytes)},
		{"careen_pull_peer_bytes_total", "counter", "Those of them that came from other nodes.", float64(m.peerBytes)},
		{"careen_pull_retries_total", "counter", "Requests to registries that were repeated.", float64(m.retries)},
		{"careen_runs_active", "gauge", "Runs that hold a slot.", float64(len(a.active))},
		{"careen_runs_queued", "gauge", "Runs that wait.", float64(len(a.queue))},
		{"careen_runs_known", "gauge", "Runs that are remembered.", float64(len(a.runs))},
		{"careen_reboot_pending", "gauge", "1 while a run's wish for a reboot keeps others from starting.", reboot},
		{"careen_records_unwritten", "gauge", "Records of runs that could not be written yet.", float64(len(a.records.dirty))},
	} {
		out.head(f.name, f.kind, f.help)
		out.line(f.name, "", f.value)
	}
}

// processMetrics are the agent's own resources, under the names that Prometheus'
// clients use.
func (a *Agent) processMetrics(out *metricsWriter) {
	out.head("careen_build_info", "gauge", "The agent's version.")
	out.line("careen_build_info", labels("version", a.cfg.Version.Version, "commit", a.cfg.Version.Commit), 1)
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, f := range []struct {
		name, help string
		value      float64
	}{
		{"process_start_time_seconds", "Start of the agent, seconds since 1970.", float64(a.started.UnixNano()) / 1e9},
		{"process_resident_memory_bytes", "Resident memory.", residentMemory()},
		{"process_open_fds", "Open file descriptors.", float64(len(fds))},
		{"process_threads", "Threads.", threads()},
		{"process_cpu_seconds_total", "User and system time.", cpuSeconds()},
		{"go_goroutines", "Goroutines.", float64(goruntime.NumGoroutine())},
	} {
		kind := "gauge"
		if strings.HasSuffix(f.name, "_total") {
			kind = "counter"
		}
		out.head(f.name, kind, f.help)
		out.line(f.name, "", f.value)
	}
}

// threads counts those of this process.
func threads() float64 {
	tasks, _ := os.ReadDir("/proc/self/task")
	return float64(len(tasks))
}

// cpuSeconds is the time that this process has used.
func cpuSeconds() float64 {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return (time.Duration(used.Utime.Nano()) + time.Duration(used.Stime.Nano())).Seconds()
}

// residentMemory reads the second figure of /proc/self/statm: pages.
func residentMemory() float64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize())
}

type metricsWriter struct{ w *bufio.Writer }

func (m *metricsWriter) head(name, kind, help string) {
	fmt.Fprintf(m.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (m *metricsWriter) line(name, labels string, value float64) {
	fmt.Fprintf(m.w, "%s%s %s\n", name, labels, strconv.FormatFloat(value, 'g', -1, 64))
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// labels formats pairs of name and value.
func labels(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		fmt.Fprintf(&b, `%s%s="%s"`, sep, pairs[i], escapeLabel.Replace(pairs[i+1]))
	}
	return b.String() + "}"
}
