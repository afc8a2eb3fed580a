package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// TestEventsTellAWholeLife: from who allowed a run to what its removal left, each with
// its moment, in the order in which it happened, also to who asks afterwards.
func TestEventsTellAWholeLife(t *testing.T) {
	harness.NeedRoot(t)
	reg := registry.Start(t)
	image, _ := reg.Push(t, tag, harness.Busybox(t))
	agent := harness.Start(t)
	req := shell(image, `trap 'echo "{\"parked\":true}" > /run/careen/result.json; exit 3' TERM; echo up; while :; do usleep 10000; done`)
	req.PullOptions = []string{"--tls-verify=false"}
	id := submit(t, agent, req)
	said(t, agent, id, "up")
	_, err := agent.Client.Abort(within(t, 10*time.Second), id, api.AbortRequest{Reason: "enough"})
	require.NoError(t, err)
	ended(t, agent, id)

	var story []string
	var last api.Event
	var output strings.Builder
	require.NoError(t, agent.Client.Events(within(t, 20*time.Second), id, 0, func(e api.Event) error {
		word := e.Type
		switch e.Type {
		case "state":
			word = string(e.State)
			assert.Equal(t, e.From == "", e.Took == "", "%+v", e)
		case "pull":
			word += " " + e.Pull.Status
		case "signal", "exit":
			word += " " + e.Message
		case "cleanup":
			assert.NotEmpty(t, e.Took)
		}
		if len(story) == 0 || story[len(story)-1] != word {
			story = append(story, word)
		}
		assert.False(t, e.Time.Before(last.Time), "in order")
		assert.Greater(t, e.Seq, last.Seq)
		last = e
		output.WriteString(e.Time.Format("05.000 ") + word + " " + e.Took + "\n")
		return nil
	}))
	t.Logf("\n%s", output.String())
	// Which states of a pull there is time to tell of depends on the machine.
	assert.Contains(t, story, "pull done")
	story = slices.DeleteFunc(story, func(word string) bool { return strings.HasPrefix(word, "pull ") || word == "warning" })
	assert.Equal(t, []string{"queued", "policy", "pulling", "creating", "running", "stopping", "signal SIGTERM to the container's first process",
		"exit exit code 3", "result", "cleanup", "aborted"}, story)
	require.NotNil(t, last.Outcome)
	for _, phase := range []string{"queued", "pulling", "creating", "running", "stopping"} {
		assert.Contains(t, last.Outcome.Phases, phase)
	}
}

// TestMetricsTellWhatWasDone: the figures that an operator graphs, after a pull and
// after a run that found everything in the store.
func TestMetricsTellWhatWasDone(t *testing.T) {
	agent, image := node(t)
	pulled := agent.Metric("careen_pull_bytes_total")
	assert.Positive(t, pulled)
	ended(t, agent, submit(t, agent, shell(image, "exit 4")))
	assert.Equal(t, pulled, agent.Metric("careen_pull_bytes_total"), "nothing more was transferred")
	text := agent.Get("/metrics")
	for _, want := range []string{
		`careen_runs_total{state="failed",code="exit"} 1`, `careen_run_phase_seconds_count{phase="queued"} 1`,
		`careen_run_phase_seconds_count{phase="pulling"} 1`, `careen_run_phase_seconds_count{phase="creating"} 1`,
		`careen_run_phase_seconds_count{phase="running"} 1`, "careen_pull_retries_total 0", "careen_pulls_total ",
		"careen_store_size_bytes ", "careen_store_free_bytes ", "careen_containers_started_total 1", "careen_aborts_total 0",
		"process_resident_memory_bytes ", "careen_memory_anonymous_bytes ", "careen_memory_file_bytes ", "process_open_fds ", "process_threads ", "process_cpu_seconds_total ", "go_goroutines ",
		"careen_records_unwritten 0", "careen_reboot_pending 0", "careen_build_info{",
	} {
		assert.Contains(t, text, "\n"+want)
	}
}
