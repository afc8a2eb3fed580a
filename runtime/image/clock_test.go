package image_test

import (
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/integration/registry"
	"github.com/careen-project/careen/runtime/image"
)

// clock is a node's clock that is wrong. This machine's is left alone.
type clock struct {
	mu  sync.Mutex
	off time.Duration
	set []time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) change(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = time.Until(t)
	c.set = append(c.set, t)
	return nil
}

// TestClockRepair: a registry's time is believed when its certificate was valid then.
func TestClockRepair(t *testing.T) {
	s := newStore(t, "64m")
	day, now := 24*time.Hour, time.Now()
	floor := now.Add(-30 * day)
	dated := func(at time.Time) func(*registry.Registry) {
		return func(r *registry.Registry) {
			r.Faults.Do("/v2/", -1, func(w http.ResponseWriter, q *http.Request, next http.Handler) {
				w.Header()["Date"] = []string{at.UTC().Format(http.TimeFormat)}
				next.ServeHTTP(w, q)
			})
		}
	}
	for _, c := range []struct {
		name  string
		at    time.Time // the node's clock
		off   bool      // the setting
		opts  []registry.Option
		setup func(*registry.Registry)
		alien bool   // the registry's authority is not known
		has   string // part of the error, "" for success
	}{
		{name: "at 1971", at: time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC)},
		{name: "a day before the certificate", at: now.Add(-day), opts: []registry.Option{registry.WithTLS()}},
		{name: "not wanted", at: now.Add(-day), off: true, has: "is before"},
		{name: "ahead", at: now.Add(40 * day), has: "is after"},
		{name: "told a time before careen", at: time.Unix(0, 0), setup: dated(floor.Add(-day)), has: "before careen was built"},
		{name: "told an earlier time", at: now.Add(-day), setup: dated(now.Add(-2 * day)), has: "no later than the node"},
		{name: "told no time", at: now.Add(-day), has: "has no date",
			setup: func(r *registry.Registry) {
				r.Faults.Do("/v2/", -1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.Header()["Date"] = nil })
			}},
		{name: "told a time after the certificate's end", at: now.Add(-day), setup: dated(now.Add(50 * day)), has: "is after"},
		{name: "told a time before the certificate", at: floor, setup: dated(floor.Add(day)), has: "is before"},
		{name: "certificate of another name", at: now.Add(-day), has: "doesn't contain any IP SANs", opts: []registry.Option{registry.WithNames("other.example")}},
		{name: "certificate of another authority", at: now.Add(-day), alien: true, has: "unknown authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := registry.Start(t, append([]registry.Option{registry.WithTLS()}, c.opts...)...)
			ref, _ := reg.Push(t, "team/tool:1", simple(t))
			if c.setup != nil {
				c.setup(reg)
			}
			req := request(ref)
			if !c.alien {
				req.CertDir = filepath.Dir(reg.CA)
			}
			node := &clock{off: time.Until(c.at)}
			p := newPuller(t, s, func(cfg *image.Config) {
				cfg.Now = node.now
				if !c.off {
					cfg.Clock = &image.Clock{Floor: floor, Set: node.change}
				}
			})
			var last image.Progress
			_, err := p.Pull(s.ctx, req, func(p image.Progress) { last = p })
			if c.has != "" {
				require.ErrorContains(t, err, c.has)
				require.Contains(t, []fault.Code{fault.Clock, fault.TLSCA, fault.TLS}, fault.CodeOf(err), "%v", err)
				require.Empty(t, node.set)
				require.Empty(t, last.Warnings)
				if c.off {
					require.Contains(t, fault.RemedyOf(err), "[clock] repair = true")
				}
				return
			}
			require.NoError(t, err)
			require.Len(t, node.set, 1)
			require.WithinDuration(t, now, node.set[0], time.Minute)
			require.Len(t, last.Warnings, 1)
			require.Contains(t, last.Warnings[0], "the node's clock was at "+c.at.UTC().Format(time.DateOnly))
			require.Zero(t, last.Retries)
			// It is set once: who sets it wrong again has to set it right.
			require.NoError(t, node.change(c.at))
			req.Policy = image.Always
			_, err = p.Pull(s.ctx, req, nil)
			require.Equal(t, fault.Clock, fault.CodeOf(err), "%v", err)
			require.ErrorContains(t, err, "once already")
		})
	}
}
