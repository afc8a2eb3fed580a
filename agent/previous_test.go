package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/policy"
)

// inputs returns the inputs file of a run's container, "" for none.
func inputs(t *testing.T, rg *rig, run string) string {
	t.Helper()
	path := rg.runner.Container(run).Previous
	if path == "" {
		return ""
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o444), info.Mode(), "any user of the container may read it")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

// TestPartsReadEarlierResults restarts the agent at any moment: inputs are on record.
func TestPartsReadEarlierResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.resolver.Change = func(_ *api.RunRequest, res *policy.Resolved) error {
			res.Parts = nil
			for _, image := range []string{`run=10s/result={"fw": 7}`, "pull=10s/run=10s/exit=0", "create=10s/run=10s"} {
				res.Parts = append(res.Parts, agenttest.Part(image))
			}
			return nil
		}
		rg.submit(t, api.RunRequest{ID: "s", Image: "sequence"})
		first := `{"part":1,"image":"run=10s/result={\"fw\": 7}","state":"succeeded","digest":"sha256:feed","exit_code":0,"result":{"fw":7}}`
		second := `{"part":2,"image":"pull=10s/run=10s/exit=0","state":"succeeded","digest":"sha256:feed","exit_code":0}`
		time.Sleep(5 * time.Second) // the first runs
		require.Empty(t, inputs(t, rg, "s"))
		rg = rg.again(t, nil)
		time.Sleep(10 * time.Second) // the second is being pulled
		rg = rg.again(t, nil)
		time.Sleep(15 * time.Second) // it runs
		require.Equal(t, "["+first+"]", inputs(t, rg, "s"))
		rg = rg.again(t, nil)
		time.Sleep(10 * time.Second) // the third is being created
		rg = rg.again(t, nil)
		time.Sleep(15 * time.Second) // it runs
		require.Equal(t, "["+first+","+second+"]", inputs(t, rg, "s"))
		require.Equal(t, api.Succeeded, rg.end(t, "s").State)
		synctest.Wait()
		require.NoDirExists(t, filepath.Join(rg.cfg.RunDir, "runs", "s"))
		require.NoError(t, rg.Close())
	})
}

func TestInputsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.runner.Script = func(image string) (agenttest.Script, error) {
			s, err := agenttest.ParseScript(image)
			if image == "large" {
				s.Run, s.Result = time.Second, `"`+strings.Repeat("<", 60<<10)+`"`
			}
			return s, err
		}
		rg.resolver.Change = func(_ *api.RunRequest, res *policy.Resolved) error {
			res.Parts = nil
			for range 6 {
				res.Parts = append(res.Parts, agenttest.Part("large"))
			}
			res.Parts = append(res.Parts, agenttest.Part("run=10s"))
			return nil
		}
		rg.submit(t, api.RunRequest{ID: "s", Image: "sequence"})
		time.Sleep(10 * time.Second)
		got := inputs(t, rg, "s")
		require.Equal(t, 4, strings.Count(got, `"result":`))
		require.Equal(t, 2, strings.Count(got, `"result_omitted":true`))
		require.Equal(t, api.Succeeded, rg.end(t, "s").State)
		require.NoError(t, rg.Close())
	})
}

// TestStepsReadTheirInputs: the last run of each in this boot, however it ended.
func TestStepsReadTheirInputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		images := map[string]string{"look": `run=1s/result={"n":1}`, "check": "run=1s", "use": "run=10s"}
		rg.resolver.Change = func(req *api.RunRequest, res *policy.Resolved) error {
			res.Parts[0].Image, res.Parts[0].Pull.Image.Original = images[req.Step], images[req.Step]
			if req.Step == "use" {
				res.Parts[0].Inputs = []string{"look", "never", "check"}
			}
			return nil
		}
		do := func(id, step string) { rg.submit(t, api.RunRequest{ID: id, Step: step}) }
		do("u0", "use")
		time.Sleep(5 * time.Second)
		require.Empty(t, inputs(t, rg, "u0"), "no earlier result")
		do("l1", "look")
		rg.end(t, "l1")
		images["look"] = `run=1s/exit=3/result={"n":2}`
		do("l2", "look")
		do("c1", "check")
		do("u1", "use")
		rg.end(t, "c1")
		rg = rg.again(t, nil)
		time.Sleep(5 * time.Second)
		require.JSONEq(t, `[{"step":"look","run":"l2","image":"run=1s/exit=3/result={\"n\":2}","state":"failed","digest":"sha256:feed",
			"exit_code":3,"result":{"n":2}},
			{"step":"check","run":"c1","image":"run=1s","state":"succeeded","digest":"sha256:feed","exit_code":0}]`, inputs(t, rg, "u1"))
		rg.end(t, "u1")
		rg = rg.again(t, func(cfg *agent.Config) { cfg.BootID = "boot-2" })
		do("u2", "use")
		time.Sleep(5 * time.Second)
		require.Empty(t, inputs(t, rg, "u2"), "a result of before the reboot")
		rg.end(t, "u2")
		require.NoError(t, rg.Close())
	})
}
