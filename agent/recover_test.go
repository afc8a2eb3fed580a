package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/exec"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/marker"
	"github.com/careen-project/careen/agent/policy"
	"github.com/careen-project/careen/agent/store/journal"
	"github.com/careen-project/careen/runtime/container"
)

func TestRestartedAgentAdoptsContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		req := api.RunRequest{ID: "a", Image: "run=60s/exit=7", Timeout: "10m"}
		before := rg.submit(t, req)
		time.Sleep(10 * time.Second)
		rg = rg.again(t, nil)
		time.Sleep(time.Second)
		v, err := rg.Run("a")
		require.NoError(t, err)
		require.Equal(t, api.Running, v.State)
		require.True(t, v.CreatedAt.Equal(before.CreatedAt))
		v, isNew, err := rg.Submit(context.Background(), &req, root)
		require.NoError(t, err)
		require.False(t, isNew, "the same request is the same run")
		require.Equal(t, "a", v.ID)
		v = rg.end(t, "a")
		require.Equal(t, 7, *v.Outcome.ExitCode)
		require.Equal(t, "1m0s", v.Outcome.Duration, "the time without an agent counts")
		require.Equal(t, []string{"pull run=60s/exit=7", "create a", "start a", "delete a"}, rg.runner.Trace())
		require.NoError(t, rg.Close())
	})
}

func TestTimeoutsCountAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever", Timeout: "60s"})
		began := time.Now()
		time.Sleep(50 * time.Second)
		rg = rg.again(t, nil)
		v := rg.end(t, "a")
		require.Equal(t, api.TimedOut, v.State)
		require.Equal(t, time.Minute, time.Since(began))
		require.NoError(t, rg.Close())
	})
}

// A container may not stretch its critical section by what kills the agent.
func TestCriticalLimitCountsAcrossARestart(t *testing.T) {
	for name, c := range map[string]struct {
		image string
		whole bool
	}{
		"claimed by its container":  {"run=forever/critical=60", false},
		"that the whole step is of": {"run=forever", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := newConfig(t)
				cfg.CriticalMax = time.Minute
				rg := start(t, cfg)
				rg.resolver.Change = func(_ *api.RunRequest, res *policy.Resolved) error {
					res.Parts[0].Critical = c.whole
					return nil
				}
				rg.submit(t, api.RunRequest{ID: "a", Image: c.image})
				time.Sleep(5 * time.Second)
				began := time.Now()
				v, err := rg.Abort(context.Background(), "a", api.AbortRequest{})
				require.NoError(t, err)
				require.Contains(t, v.StopReason, "critical section")
				require.NotNil(t, v.CriticalUntil)
				for range 3 {
					time.Sleep(15 * time.Second)
					rg = rg.again(t, nil)
				}
				v = rg.end(t, "a")
				require.Equal(t, api.Aborted, v.State)
				require.GreaterOrEqual(t, time.Since(began), 50*time.Second)
				require.Less(t, time.Since(began), 70*time.Second)
				require.NoError(t, rg.Close())
			})
		})
	}
}

// Events tell a run's whole life, whichever agents it was under: none twice, none
// left out, and who was in the middle of them goes on from there.
func TestEventsOutliveTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.submit(t, api.RunRequest{ID: "a", Image: "pull=4s/run=60s/exit=7/warn=mind the gap/left=a mount"})
		var seen []string
		var last int64
		follow := func(ctx context.Context) {
			for _, e := range rg.eventsAfter(t, ctx, "a", last) {
				word := e.Type
				switch e.Type {
				case "state":
					word = string(e.State)
				case "pull":
					word += " " + e.Pull.Status
				}
				if len(seen) == 0 || seen[len(seen)-1] != word {
					seen = append(seen, word)
				}
				require.NotContains(t, e.Message, "dropped")
				require.Greater(t, e.Seq, last)
				last = e.Seq
			}
		}
		for range 4 {
			short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			follow(short)
			cancel()
			rg = rg.again(t, nil)
		}
		rg.end(t, "a")
		synctest.Wait()
		follow(t.Context())
		life := []string{"queued", "policy", "pulling", "pull resolving", "pull downloading", "pull done", "creating", "warning",
			"running", "exit", "cleanup", "failed"}
		require.Equal(t, life, seen)
		// A later reader gets the same, also from the next agent.
		for range 2 {
			seen, last = nil, 0
			follow(t.Context())
			require.Equal(t, life, seen)
			rg = rg.again(t, nil)
		}
		left, err := os.ReadDir(filepath.Join(rg.cfg.RunDir, "events"))
		require.NoError(t, err)
		require.Empty(t, left)
		require.NoError(t, rg.Close())
	})
}

// A container that makes events without end makes neither file nor memory grow.
func TestEventsOfARunAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.submit(t, api.RunRequest{ID: "a", Image: "run=2h"})
		synctest.Wait()
		for range 800 {
			require.NoError(t, rg.runner.Write("a", "critical", ""))
			time.Sleep(time.Second)
			require.NoError(t, rg.runner.Remove("a", "critical"))
			time.Sleep(time.Second)
		}
		rg = rg.again(t, nil)
		rg.end(t, "a")
		synctest.Wait()
		events := rg.events(t, "a")
		require.Equal(t, api.Succeeded, events[len(events)-1].State)
		require.LessOrEqual(t, len(events), 256)
		require.NoError(t, rg.Close())
	})
}

func TestExitWithoutAnAgentIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		// Limits that passed while there was no agent do not change how it ended before.
		rg.submit(t, api.RunRequest{ID: "a", Image: `out=the last words/run=20s/exit=9/result={"done":9}`,
			Timeout: "30m", SilenceTimeout: "5m"})
		time.Sleep(10 * time.Second)
		require.NoError(t, rg.Close())
		time.Sleep(time.Hour)
		rg = rg.again(t, nil)
		v := rg.end(t, "a")
		require.Equal(t, api.Failed, v.State)
		require.Equal(t, 9, *v.Outcome.ExitCode)
		require.JSONEq(t, `{"done":9}`, string(v.Outcome.Result))
		require.Equal(t, []string{"the last words"}, v.Outcome.LogTail)
		require.Equal(t, "20s", v.Outcome.Duration, "the shim saw how long it ran")
		require.NoError(t, rg.Close())
	})
}

func TestUnknownExitIsLostAndNotRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		req := api.RunRequest{ID: "a", Image: "run=forever"}
		rg.submit(t, req)
		time.Sleep(time.Second)
		require.NoError(t, rg.Close())
		rg.runner.Forget("a")
		rg = rg.again(t, nil)
		v := rg.end(t, "a")
		require.Equal(t, api.Lost, v.State)
		require.Equal(t, "lost", v.Outcome.Code)
		require.Nil(t, v.Outcome.ExitCode)
		v, isNew, err := rg.Submit(context.Background(), &req, root)
		require.NoError(t, err)
		require.False(t, isNew)
		require.Equal(t, api.Lost, v.State)
		require.Nil(t, rg.runner.Container("a"))
		require.NoError(t, rg.Close())
	})
}

func TestRunInterruptedByRebootIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.submit(t, api.RunRequest{ID: "running", Image: "run=forever"})
		rg.submit(t, api.RunRequest{ID: "waiting", Image: "run=forever"})
		time.Sleep(time.Second)
		// After the reboot there are no containers, and the clock begins again.
		began := time.Now()
		rg = rg.again(t, func(cfg *agent.Config) {
			cfg.BootID, cfg.Runner, cfg.RunDir = "boot-2", agenttest.NewRunner(), t.TempDir()
			cfg.Clock = func() time.Duration { return time.Second + time.Since(began) }
		})
		for id, started := range map[string]bool{"running": true, "waiting": false} {
			v := rg.end(t, id)
			require.Equal(t, api.Lost, v.State)
			require.Equal(t, "interrupted_by_reboot", v.Outcome.Attrs["reason"])
			require.Equal(t, "boot-1", v.Outcome.Attrs["boot_id_then"])
			require.Equal(t, "boot-2", v.Outcome.Attrs["boot_id_now"])
			require.Equal(t, started, v.Outcome.Attrs["started"])
			require.Empty(t, v.Outcome.Duration, "no clock went on over the reboot")
		}
		require.NoError(t, rg.Close())
	})
}

func TestUnstartedRunsContinueAfterARestart(t *testing.T) {
	for name, image := range map[string]string{"pulling": "pull=10s", "creating": "create=10s"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rg := newRig(t)
				rg.submit(t, api.RunRequest{ID: "first", Image: image + "/run=10s"})
				rg.submit(t, api.RunRequest{ID: "second", Image: "run=10s"})
				time.Sleep(5 * time.Second)
				rg = rg.again(t, nil)
				second, err := rg.Run("second")
				require.NoError(t, err)
				require.Equal(t, 1, second.QueuePosition)
				require.Equal(t, api.Succeeded, rg.end(t, "first").State)
				require.Equal(t, api.Succeeded, rg.end(t, "second").State)
				require.NoError(t, rg.Close())
			})
		})
	}
}

// Runs stay in the order in which they were accepted, though the wall clock was set
// back in between.
func TestRunsKeepTheirOrderWhenTheClockIsSetBack(t *testing.T) {
	cfg := newConfig(t)
	j, err := journal.Open(filepath.Join(cfg.StateDir, "journal"), nil)
	require.NoError(t, err)
	for i, created := range []string{"2031-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2028-01-01T00:00:00Z"} {
		require.NoError(t, j.Put(fmt.Sprint(i), map[string]any{"audited": true, "kept": true, "run": map[string]any{
			"id": fmt.Sprint(i), "state": "succeeded", "created_at": created, "boot_id": "boot-1", "outcome": map[string]any{}}}))
	}
	require.NoError(t, j.Close())
	rg := start(t, cfg)
	for i, v := range rg.Runs() {
		require.Equal(t, fmt.Sprint(i), v.ID)
	}
	require.NoError(t, rg.Close())
}

func TestContainerWithoutARecordIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.submit(t, api.RunRequest{ID: "a", Image: "run=60s/exit=4"})
		time.Sleep(time.Second)
		rg = rg.again(t, func(cfg *agent.Config) { cfg.StateDir = t.TempDir() })
		v := rg.end(t, "a")
		require.Equal(t, 4, *v.Outcome.ExitCode)
		require.Contains(t, v.Warnings[0], "without a record")
		require.NoError(t, rg.Close())
	})
}

// A disk that loses what was written to it takes the journal back to a time before
// the start: the container is there all the same, and its work is not done again.
func TestStartWithALostRecordIsNotRepeated(t *testing.T) {
	for name, away := range map[string]time.Duration{"it runs": time.Second, "it has ended": time.Hour} {
		for record := 1; record <= 4; record++ {
			t.Run(fmt.Sprintf("%s, record %d", name, record), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cfg := newConfig(t)
					old, records := t.TempDir(), 0
					cfg.Failpoint = func(at string) {
						if at != "agent.after-record" {
							return
						}
						if records++; records == record {
							require.NoError(t, os.CopyFS(old, os.DirFS(filepath.Join(cfg.StateDir, "journal"))))
						}
					}
					rg := start(t, cfg)
					req := api.RunRequest{ID: "a", Image: "run=60s/exit=4", Timeout: "1h"}
					rg.submit(t, req)
					time.Sleep(10 * time.Second)
					require.NoError(t, rg.Close())
					require.NoError(t, os.RemoveAll(filepath.Join(cfg.StateDir, "journal")))
					require.NoError(t, os.Rename(old, filepath.Join(cfg.StateDir, "journal")))
					time.Sleep(away)
					rg.cfg.Failpoint = nil
					rg = start(t, rg.cfg)
					v := rg.end(t, "a")
					require.Equal(t, 4, *v.Outcome.ExitCode, "%+v", v)
					require.Equal(t, []string{"pull run=60s/exit=4", "create a", "start a", "delete a"}, rg.runner.Trace())
					_, isNew, err := rg.Submit(context.Background(), &req, root)
					require.NoError(t, err)
					require.False(t, isNew)
					require.NoError(t, rg.Close())
				})
			})
		}
	}
}

func TestAbortSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever/term=ignore"})
		time.Sleep(time.Second)
		_, err := rg.Abort(context.Background(), "a", api.AbortRequest{})
		require.NoError(t, err)
		time.Sleep(time.Second)
		rg = rg.again(t, nil)
		v := rg.end(t, "a")
		require.Equal(t, api.Aborted, v.State)
		require.Equal(t, 137, *v.Outcome.ExitCode)
		require.NoError(t, rg.Close())
	})
}

func TestDrain(t *testing.T) {
	t.Run("leaves containers running", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rg := newRig(t)
			rg.submit(t, api.RunRequest{ID: "a", Image: "run=60s"})
			rg.submit(t, api.RunRequest{ID: "b", Image: "run=1s"})
			time.Sleep(time.Second)
			require.NoError(t, rg.Drain(t.Context(), false))
			_, _, err := rg.Submit(context.Background(), &api.RunRequest{Image: "x"}, root)
			require.Equal(t, fault.Unreachable, fault.CodeOf(err))
			rg = rg.again(t, nil)
			require.Equal(t, api.Succeeded, rg.end(t, "a").State)
			require.Equal(t, api.Succeeded, rg.end(t, "b").State)
			require.NoError(t, rg.Close())
		})
	})
	t.Run("stops containers by the stop escalation", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := newConfig(t)
			cfg.StopOnDrain = true
			rg := start(t, cfg)
			rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever/term=2s:0"})
			rg.submit(t, api.RunRequest{ID: "b", Image: "run=1s"})
			time.Sleep(time.Second)
			began := time.Now()
			require.NoError(t, rg.Drain(t.Context(), false))
			require.Equal(t, 2*time.Second, time.Since(began))
			for _, id := range []string{"a", "b"} {
				v := rg.end(t, id)
				require.Equal(t, api.Aborted, v.State)
				require.Contains(t, v.Outcome.Message, "the agent is stopping")
				require.Equal(t, "agent_stopped", v.Outcome.Code, "no client asked for its end")
			}
			require.NoError(t, rg.Close())
		})
	})
	t.Run("stops them in any case when the node goes down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rg := start(t, newConfig(t))
			rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever/term=2s:0"})
			rg.submit(t, api.RunRequest{ID: "b", Image: "run=1s"})
			time.Sleep(time.Second)
			require.NoError(t, rg.Drain(t.Context(), true))
			for _, id := range []string{"a", "b"} {
				v := rg.end(t, id)
				require.Equal(t, api.Aborted, v.State)
				require.Contains(t, v.Outcome.Message, "the node is shutting down")
				require.Equal(t, "node_shutdown", v.Outcome.Code)
			}
			require.NoError(t, rg.Close())
		})
	})
	t.Run("not for longer than it may", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := newConfig(t)
			cfg.StopOnDrain = true
			rg := start(t, cfg)
			rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever/critical=600"})
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			require.ErrorIs(t, rg.Drain(ctx, false), context.DeadlineExceeded)
			require.NoError(t, rg.Close())
		})
	})
}

func TestNoRunStartsWhileARebootIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.submit(t, api.RunRequest{ID: "flash", Image: `run=1s/result={"reboot":true,"reason":"new firmware"}`})
		rg.submit(t, api.RunRequest{ID: "next", Image: "run=1s"})
		require.Equal(t, api.Succeeded, rg.end(t, "flash").State)
		v := rg.end(t, "next")
		require.Equal(t, api.Failed, v.State)
		require.Equal(t, "reboot_pending", v.Outcome.Code)
		require.Equal(t, exec.Reboot{Run: "flash", Reason: "the container wrote it in its result: new firmware"}, <-rg.Reboots())

		refused := func() {
			_, _, err := rg.Submit(context.Background(), &api.RunRequest{Image: "run=1s"}, root)
			require.Equal(t, fault.RebootPending, fault.CodeOf(err))
			require.ErrorContains(t, err, "flash")
			require.Equal(t, "flash", rg.Health().RebootPending)
		}
		refused()
		synctest.Wait()
		rg = rg.again(t, nil) // a restart is no reboot
		refused()
		require.NoError(t, rg.Delete(context.Background(), "flash"))
		rg.submit(t, api.RunRequest{ID: "after", Image: "run=1s/exit=42", RebootExitCodes: []int{42}})
		require.True(t, rg.end(t, "after").Outcome.RebootRequested)
		synctest.Wait()
		rg = rg.again(t, func(cfg *agent.Config) { cfg.BootID = "boot-2" })
		rg.submit(t, api.RunRequest{ID: "fresh", Image: "run=0s"})
		require.Equal(t, api.Succeeded, rg.end(t, "fresh").State)
		require.NoError(t, rg.Close())
	})
}

func TestSequence(t *testing.T) {
	parts := func(images ...string) func(*api.RunRequest, *policy.Resolved) error {
		return func(_ *api.RunRequest, res *policy.Resolved) error {
			res.Parts = nil
			for _, image := range images {
				res.Parts = append(res.Parts, agenttest.Part(image))
			}
			return nil
		}
	}
	t.Run("one after another, over a restart", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rg := newRig(t)
			rg.resolver.Change = parts("run=10s", "pull=1s/run=10s/exit=0", "run=5s")
			rg.submit(t, api.RunRequest{ID: "s", Image: "sequence"})
			time.Sleep(5 * time.Second)
			rg = rg.again(t, nil)
			time.Sleep(6500 * time.Millisecond)
			v, err := rg.Run("s")
			require.NoError(t, err)
			require.Equal(t, []int{2, 3}, []int{v.Part, v.Parts})
			rg = rg.again(t, nil)
			v = rg.end(t, "s")
			require.Equal(t, api.Succeeded, v.State, "%v", v.Outcome)
			starts := 0
			for _, call := range rg.runner.Trace() {
				if call == "start s" {
					starts++
				}
			}
			require.Equal(t, 3, starts)
			require.NoError(t, rg.Close())
		})
	})
	t.Run("ends with the first failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rg := newRig(t)
			rg.resolver.Change = parts("run=1s", "run=1s/exit=5", "run=1s")
			rg.submit(t, api.RunRequest{ID: "s", Image: "sequence"})
			v := rg.end(t, "s")
			require.Equal(t, api.Failed, v.State)
			require.Equal(t, 5, *v.Outcome.ExitCode)
			require.Equal(t, 2, v.Part)
			require.NoError(t, rg.Close())
		})
	})
}

func TestAuditRecordHasEveryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.submit(t, api.RunRequest{ID: "a", Image: "run=1s/exit=3", Node: map[string]any{"uuid": "node-1"}, Phase: "clean", Route: "ipa"})
		rg.resolver.Change = func(*api.RunRequest, *policy.Resolved) error {
			return &fault.Error{Code: fault.Policy, Op: "run", Subject: "evil", Reason: "not allowed"}
		}
		_, _, err := rg.Submit(context.Background(), &api.RunRequest{Image: "evil"}, api.Peer{UID: 1000, PID: 77, Command: "sh"})
		require.Error(t, err)
		rg.end(t, "a")
		synctest.Wait()
		var records []api.AuditRecord
		w := rg.get(t, "/v1/audit")
		for line := range bytes.Lines(w.Body.Bytes()) {
			var rec api.AuditRecord
			require.NoError(t, json.Unmarshal(line, &rec))
			records = append(records, rec)
		}
		require.Len(t, records, 2)
		require.Equal(t, "refused", records[0].Event)
		require.Equal(t, "policy", records[0].Code)
		require.EqualValues(t, 1000, records[0].PeerUID)
		ran := records[1]
		require.Equal(t, []string{"run", "a", "clean", "node-1", "ipa", "exit"},
			[]string{ran.Event, ran.Run, ran.Phase, ran.Node, ran.Route, ran.Code})
		require.Equal(t, "1s", ran.Duration)
		require.Len(t, ran.Containers, 1)
		require.Equal(t, "test", ran.Containers[0].Decision)
		require.Equal(t, "sha256:feed", ran.Containers[0].Digest)
		require.Len(t, ran.Containers[0].SpecSHA256, 64)
		require.True(t, ran.Containers[0].Started)
		require.NoError(t, rg.Close())
	})
}

func TestStuckContainerBlocksRunsAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rg := newRig(t)
		rg.submit(t, api.RunRequest{ID: "a", Image: "run=forever/term=ignore/kill=ignore"})
		rg.submit(t, api.RunRequest{ID: "next", Image: "run=0s"})
		time.Sleep(time.Second)
		_, err := rg.Abort(context.Background(), "a", api.AbortRequest{})
		require.NoError(t, err)
		require.Equal(t, "stuck", rg.end(t, "a").Outcome.Code)
		refused := func() {
			_, _, err := rg.Submit(context.Background(), &api.RunRequest{Image: "x"}, root)
			require.Equal(t, fault.Stuck, fault.CodeOf(err))
			require.False(t, rg.Health().Ready)
			next, err := rg.Run("next")
			require.NoError(t, err)
			require.Equal(t, api.Queued, next.State, "what waits goes on waiting")
		}
		refused()
		rg = rg.again(t, nil)
		require.Less(t, rg.runner.Patience(), 20*time.Second, "requests wait until the agent has recovered")
		refused()
		time.Sleep(10 * time.Minute)
		refused()
		rg.runner.End("a", container.Exit{Code: 137}) // the disk answered after all
		require.Equal(t, api.Succeeded, rg.end(t, "next").State)
		require.True(t, rg.Health().Ready)
		require.NoError(t, rg.Close())
	})
}

func TestRebootMarkerWithoutAJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "esp")
		place, err := marker.Open("file:" + path)
		require.NoError(t, err)
		cfg := newConfig(t)
		cfg.Marker = place
		rg := start(t, cfg)
		rg.submit(t, api.RunRequest{ID: "fine", Image: "run=1s"})
		rg.end(t, "fine")
		require.NoFileExists(t, path)
		rg.submit(t, api.RunRequest{ID: "flash", Image: "run=forever", Phase: "clean"})
		time.Sleep(time.Second)
		rg = rg.again(t, nil) // a restart is no reboot
		require.Equal(t, api.Running, rg.waitFor(t, "flash", api.Running).State)
		require.FileExists(t, path)

		rg = rg.again(t, func(cfg *agent.Config) {
			cfg.BootID, cfg.Runner, cfg.RunDir, cfg.StateDir = "boot-2", agenttest.NewRunner(), t.TempDir(), t.TempDir()
		})
		v := rg.end(t, "flash")
		require.Equal(t, api.Lost, v.State)
		require.Equal(t, "clean", v.Phase)
		require.Equal(t, "interrupted_by_reboot", v.Outcome.Attrs["reason"])
		require.Equal(t, "boot-1", v.Outcome.Attrs["boot_id_then"])
		require.NoFileExists(t, path, "it is reported once")
		require.NoError(t, rg.Close())
	})
}
