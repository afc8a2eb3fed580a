package httpd

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
	"time"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/rootfs/procfs"
)

// Metrics are the agent's metrics since its start. This file writes them in Prometheus' text
// format (https://prometheus.io/docs/instrumenting/exposition_formats/) without Prometheus'
// client, which would add 1 MB to the binary.
type Metrics struct {
	// Runs counts the runs that ended.
	Runs map[RunEnd]int64
	// Phases are the times that ended runs spent in each phase, in seconds.
	Phases map[string]Histogram
	// Refusals counts the requests for runs that were refused, by code.
	Refusals map[string]int64
	// Pushes counts pushed bundles by result; nil where none are pushed.
	Pushes map[string]int64

	// Counters.
	ContainersStarted, Aborts, Pulls, PullBytes, PullRetries int64
	// Gauges, in runs; RecordsUnwritten in records.
	Active, Queued, Known, RecordsUnwritten int
	// RebootPending says that a run's request for a reboot keeps others from starting.
	RebootPending bool
}

// RunEnd is how a run ended.
type RunEnd struct {
	State api.State
	Code  string
}

// Histogram is a distribution of observed values.
type Histogram struct {
	// Upper are the upper bounds of the buckets, Counts how many values were at most
	// that.
	Upper  []float64
	Counts []int64
	Sum    float64
	Count  int64
}

// Gauge is one figure for /metrics that is not the agent's own.
type Gauge struct {
	// Name is a metric's full name; Help one line.
	Name, Help string
	Value      float64
	// Counter says that the figure only grows.
	Counter bool
}

// writeMetrics writes all metrics in Prometheus' text format.
func (s *Server) writeMetrics(w io.Writer) error {
	out := &metricsWriter{w: bufio.NewWriter(w)}
	out.runs(s.cfg.Agent.Metrics())
	s.processMetrics(out)
	if s.cfg.Gauges != nil {
		for _, g := range s.cfg.Gauges() {
			out.figure(g.Name, g.Help, g.Counter, g.Value)
		}
	}
	return out.w.Flush()
}

func (m *metricsWriter) runs(v Metrics) {
	m.head("careen_runs_total", "counter", "Runs that ended, by final state and code.")
	for _, k := range slices.SortedFunc(maps.Keys(v.Runs), func(x, y RunEnd) int {
		return strings.Compare(string(x.State)+x.Code, string(y.State)+y.Code)
	}) {
		m.line("careen_runs_total", labels("state", string(k.State), "code", k.Code), float64(v.Runs[k]))
	}
	const phases = "careen_run_phase_seconds"
	m.head(phases, "histogram", "Time that ended runs spent in each phase.")
	for _, phase := range slices.Sorted(maps.Keys(v.Phases)) {
		h := v.Phases[phase]
		for i, upper := range h.Upper {
			m.line(phases+"_bucket", labels("phase", phase, "le", strconv.FormatFloat(upper, 'g', -1, 64)), float64(h.Counts[i]))
		}
		m.line(phases+"_bucket", labels("phase", phase, "le", "+Inf"), float64(h.Count))
		m.line(phases+"_sum", labels("phase", phase), h.Sum)
		m.line(phases+"_count", labels("phase", phase), float64(h.Count))
	}
	m.byLabel("careen_requests_refused_total", "Requests for runs that were refused, by code.", "code", v.Refusals)
	if v.Pushes != nil {
		m.byLabel("careen_pushes_total", "Bundles of runs that were pushed, by result.", "result", v.Pushes)
	}
	m.figure("careen_containers_started_total", "Containers started.", true, float64(v.ContainersStarted))
	m.figure("careen_aborts_total", "Requests to abort a run.", true, float64(v.Aborts))
	m.figure("careen_pulls_total", "Pulls that succeeded.", true, float64(v.Pulls))
	m.figure("careen_pull_bytes_total", "Compressed bytes pulled.", true, float64(v.PullBytes))
	m.figure("careen_pull_retries_total", "Repeated requests to registries.", true, float64(v.PullRetries))
	m.figure("careen_runs_active", "Runs that hold a slot.", false, float64(v.Active))
	m.figure("careen_runs_queued", "Runs in the queue.", false, float64(v.Queued))
	m.figure("careen_runs_known", "Runs in memory.", false, float64(v.Known))
	reboot := 0.0
	if v.RebootPending {
		reboot = 1
	}
	m.figure("careen_reboot_pending", "1 while a requested reboot is pending and no run starts.", false, reboot)
	m.figure("careen_records_unwritten", "Records of runs that are not written yet.", false, float64(v.RecordsUnwritten))
}

// processMetrics writes the agent's own resources under the names that Prometheus' clients
// use.
func (s *Server) processMetrics(out *metricsWriter) {
	out.head("careen_build_info", "gauge", "The agent's version.")
	out.line("careen_build_info", labels("version", s.cfg.Version.Version, "commit", s.cfg.Version.Commit), 1)
	fds, _ := os.ReadDir("/proc/self/fd")
	memory, _ := procfs.Self() // without /proc all figures are 0
	for _, f := range []struct {
		name, help string
		value      float64
	}{
		{"process_start_time_seconds", "Start of the agent, seconds since 1970.", float64(s.cfg.Started.UnixNano()) / 1e9},
		{"process_resident_memory_bytes", "Resident memory.", float64(memory.Resident)},
		{"careen_memory_anonymous_bytes", "Resident memory that belongs to the agent alone: heap and stacks.", float64(memory.Anonymous)},
		{"careen_memory_file_bytes", "Resident pages of files and shared memory. Most are of the binary: the page cache holds them in any case.", float64(memory.File)},
		{"process_open_fds", "Open file descriptors.", float64(len(fds))},
		{"process_threads", "Threads.", threads()},
		{"process_cpu_seconds_total", "User and system time.", cpuSeconds()},
		{"go_goroutines", "Goroutines.", float64(goruntime.NumGoroutine())},
	} {
		out.figure(f.name, f.help, strings.HasSuffix(f.name, "_total"), f.value)
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

type metricsWriter struct{ w *bufio.Writer }

func (m *metricsWriter) head(name, kind, help string) {
	fmt.Fprintf(m.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (m *metricsWriter) line(name, labels string, value float64) {
	fmt.Fprintf(m.w, "%s%s %s\n", name, labels, strconv.FormatFloat(value, 'g', -1, 64))
}

// figure writes a metric that has one value and no labels.
func (m *metricsWriter) figure(name, help string, counter bool, value float64) {
	kind := "gauge"
	if counter {
		kind = "counter"
	}
	m.head(name, kind, help)
	m.line(name, "", value)
}

// byLabel writes a counter with one label.
func (m *metricsWriter) byLabel(name, help, label string, values map[string]int64) {
	m.head(name, "counter", help)
	for _, value := range slices.Sorted(maps.Keys(values)) {
		m.line(name, labels(label, value), float64(values[value]))
	}
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
