package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/httpd"
	"github.com/careen-project/careen/rootfs/doctor"
	"github.com/careen-project/careen/runtime/image"
	"github.com/careen-project/careen/runtime/image/peers"
	"github.com/careen-project/careen/steps"
)

// maxJitter leaves most of a pull's two hours to the pull.
const maxJitter = 30 * time.Minute

// What an agent that gives layers away keeps, and how long.
var (
	defaultKeep = steps.Duration{Duration: 30 * time.Minute}
	defaultMax  = amount{1 << 30}
)

// pullTable is [pull] of careen.toml.
type pullTable struct {
	Jitter steps.Duration `toml:"jitter"`
}

// peersTable is [peers] of careen.toml.
type peersTable struct {
	From     []string       `toml:"from"`
	Serve    string         `toml:"serve"`
	Allow    []string       `toml:"allow"`
	Keep     steps.Duration `toml:"keep"`
	MaxBytes amount         `toml:"max_bytes"`
	MaxRate  amount         `toml:"max_rate"`
}

// amount is a size in bytes such as "512m".
type amount struct{ bytes int64 }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *amount) UnmarshalText(text []byte) error {
	v, err := units.RAMInBytes(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf(`%q is not a size such as "512m" or "2g"`, text)
	}
	a.bytes = v
	return nil
}

// sharing is how the node fetches images where many do at once.
type sharing struct {
	pull  pullTable
	peers peersTable
	kept  *peers.Kept
	group *peers.Group

	server *peers.Server
	err    error // why there is no server
}

// readSharing reads [pull] and [peers] of careen.toml.
func readSharing(cfg *steps.Config) (*sharing, []steps.Warning, error) {
	s := &sharing{peers: peersTable{Keep: defaultKeep, MaxBytes: defaultMax}}
	warnings, err := cfg.Section("pull", &s.pull)
	if err != nil {
		return nil, nil, err
	}
	more, err := cfg.Section("peers", &s.peers)
	if err != nil {
		return nil, nil, err
	}
	bad := func(table string, err error) (*sharing, []steps.Warning, error) {
		return nil, nil, &fault.Error{Code: fault.BadConfig, Op: "read configuration", Subject: cfg.At(table), Err: err,
			Remedy: "Correct [" + table + "] and restart the agent"}
	}
	if s.pull.Jitter.Duration > maxJitter {
		return bad("pull", fmt.Errorf("jitter is longer than %s", maxJitter))
	}
	if s.peers.Serve != "" {
		if err := s.serving().Check(); err != nil {
			return bad("peers", err)
		}
	} else if len(s.peers.Allow) > 0 {
		return bad("peers", errors.New("allow says who may ask, and serve, on what address, is missing"))
	}
	if len(s.peers.From) > 0 {
		if s.group, err = peers.NewGroup(s.peers.From); err != nil {
			return bad("peers", err)
		}
	}
	warnings = append(warnings, more...)
	cfg.Show(s.show(cfg), warnings)
	return s, warnings, nil
}

func (s *sharing) serving() peers.Serving {
	return peers.Serving{Address: s.peers.Serve, Allow: s.peers.Allow, MaxRate: s.peers.MaxRate.bytes}
}

// show lists the settings for careen config.
func (s *sharing) show(cfg *steps.Config) (all []steps.Source) {
	list := func(words []string) string {
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = strconv.Quote(w)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	add := func(table, key, value string, own bool) {
		from := ""
		if own {
			from = cfg.At(table)
		}
		all = append(all, steps.Source{Key: table + "." + key, Value: value, From: from})
	}
	p := s.peers
	add("pull", "jitter", s.pull.Jitter.String(), s.pull.Jitter.Duration != 0)
	add("peers", "from", list(p.From), p.From != nil)
	add("peers", "serve", p.Serve, p.Serve != "")
	add("peers", "allow", list(p.Allow), p.Allow != nil)
	add("peers", "keep", p.Keep.String(), p.Keep != defaultKeep)
	add("peers", "max_bytes", units.BytesSize(float64(p.MaxBytes.bytes)), p.MaxBytes != defaultMax)
	add("peers", "max_rate", units.BytesSize(float64(p.MaxRate.bytes)), p.MaxRate.bytes != 0)
	return all
}

// configure has pulls use the settings. Only an agent that stays keeps layers.
func (s *sharing) configure(cfg *image.Config, stays bool) {
	if stays && s.peers.Serve != "" {
		s.kept = peers.NewKept(s.peers.MaxBytes.bytes, s.peers.Keep.Duration)
	}
	cfg.Jitter, cfg.Peers, cfg.Kept = s.pull.Jitter.Duration, s.group, s.kept
}

// serve begins to give layers away, if that is asked for. A node that cannot is still
// one that runs steps.
func (s *sharing) serve() error {
	if s.kept == nil {
		return nil
	}
	if s.server, s.err = peers.Serve(s.serving(), s.kept); s.err != nil {
		_ = s.kept.Close() // nobody could come for it
		return s.err
	}
	if s.group != nil {
		s.group.SetOwn(s.server.Address())
	}
	return nil
}

// checks are the part of GET /v1/health.
func (s *sharing) checks() []api.Check {
	switch {
	case s.err != nil:
		return []api.Check{{Name: "peers", Status: doctor.StatusWarning, Detail: s.err.Error(), Remedy: fault.RemedyOf(s.err)}}
	case s.server != nil:
		return []api.Check{{Name: "peers", Status: doctor.StatusOK,
			Detail: fmt.Sprintf("gives layers on %s, keeps %s", s.server.Address(), bytesText(s.kept.Size()))}}
	}
	return nil
}

func (s *sharing) gauges() []httpd.Gauge {
	if s.server == nil {
		return nil
	}
	return []httpd.Gauge{
		{Name: "careen_peer_kept_bytes", Help: "Compressed layers that are kept for other nodes.", Value: float64(s.kept.Size())},
		{Name: "careen_peer_sent_bytes_total", Help: "Bytes of layers given to other nodes.", Value: float64(s.server.Sent()), Counter: true},
	}
}

func (s *sharing) close() error {
	var err error
	if s.server != nil {
		err = s.server.Close()
	}
	return errors.Join(err, s.kept.Close())
}
