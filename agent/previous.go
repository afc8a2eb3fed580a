package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

const (
	// previousName is the file in a run's directory that its container sees, and cannot
	// change, as /run/careen/previous.json.
	previousName = "previous.json"
	// maxPrevious bounds, in bytes, the results that a run's record keeps of the
	// containers before the one at hand: each of its records has them all.
	maxPrevious = 256 << 10
)

// previous is what a container is told of one before it: of an earlier part of its
// sequence, or of the last run of a step that its definition names.
type previous struct {
	Part  int       `json:"part,omitempty"`
	Step  string    `json:"step,omitempty"`
	Run   string    `json:"run,omitempty"`
	Image string    `json:"image"`
	State api.State `json:"state"`
	// Digest and ExitCode are absent where there are none.
	Digest   string          `json:"digest,omitempty"`
	ExitCode *int            `json:"exit_code,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	// ResultOmitted says that there was a result, and no room for it.
	ResultOmitted bool `json:"result_omitted,omitempty"`
}

// partOver adds what the container at hand said to what the next ones are told. v is
// the verdict on it.
func (rec *record) partOver(v verdict) {
	p := previous{Part: rec.Part + 1, Image: rec.Run.Image, Digest: rec.Run.Digest, State: v.state,
		ExitCode: v.outcome.ExitCode, Result: v.outcome.Result}
	size := len(p.Result)
	for _, before := range rec.Previous {
		size += len(before.Result)
	}
	if size > maxPrevious {
		p.Result, p.ResultOmitted = nil, true
	}
	rec.Previous = append(rec.Previous, p)
}

// told lists what the container of a part is told. The lock is held.
func (a *Agent) told(r *run, part Part) []previous {
	list := slices.Clone(r.rec.Previous)
	for _, step := range part.Inputs {
		// The newest that has ended; what one said in a boot before this one holds no more.
		for i := len(a.order) - 1; i >= 0; i-- {
			run := a.order[i].rec.Run
			if run.Step != step || !run.State.Final() || run.BootID != a.cfg.BootID {
				continue
			}
			list = append(list, previous{Step: step, Run: run.ID, Image: run.Image, Digest: run.Digest, State: run.State,
				ExitCode: run.Outcome.ExitCode, Result: run.Outcome.Result})
			break
		}
	}
	return list
}

// tell writes what the container at hand is told, and returns the file, "" for none.
func (a *Agent) tell(r *run, part Part) (path string, err error) {
	a.mu.Lock()
	list := a.told(r, part)
	a.mu.Unlock()
	if len(list) == 0 {
		return "", nil
	}
	path = filepath.Join(a.cfg.runDir(r.id), previousName)
	data, err := json.Marshal(list)
	if err == nil {
		err = writeFile(path, data)
	}
	if err == nil {
		err = os.Chmod(path, 0o444) // the container may be any user
	}
	if err != nil {
		return "", &fault.Error{Code: fault.Node, Op: "write", Subject: path, Err: err, Remedy: "Make room in " + a.cfg.RunDir}
	}
	return path, nil
}
