package httpd

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// nodeFiles are the node's files in a bundle, by their names in the bundle.
var nodeFiles = map[string]string{
	"node/mountinfo": "/proc/self/mountinfo", "node/meminfo": "/proc/meminfo", "node/version": "/proc/version",
	"node/cmdline": "/proc/cmdline", "node/modules": "/proc/modules", "node/cgroups": "/proc/cgroups",
	"node/filesystems": "/proc/filesystems", "node/loadavg": "/proc/loadavg", "node/uptime": "/proc/uptime",
	"node/partitions": "/proc/partitions", "node/mdstat": "/proc/mdstat", "node/resolv.conf": "/etc/resolv.conf",
}

// maxFile is the limit for one file, in bytes. The rest is cut off.
const maxFile = 64 << 20

func (s *Server) getBundle(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if _, err := s.cfg.Agent.Run(id); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Content-Disposition", `attachment; filename="careen-`+id+`.tar"`)
	return stream(w, func(out io.Writer) error { return s.WriteBundle(out, id) })
}

// WriteBundle writes one tar about a run: the run, its output, events and spec if retention
// has kept them, and the state of agent and node. Secrets are masked in every file. The error is [fault.NotFound] for an
// unknown run, else an error of out.
func (s *Server) WriteBundle(out io.Writer, id string) error {
	run, err := s.cfg.Agent.Run(id)
	if err != nil {
		return err
	}
	b := &bundle{tar: tar.NewWriter(out), prefix: "careen-" + id + "/", now: time.Now()}
	if line, err := os.ReadFile(nodeFiles["node/cmdline"]); err == nil {
		b.masker.learn(line) // Ironic's token for this node with virtual media
	}
	b.json("run.json", run)
	b.json("version.json", s.cfg.Version)
	b.json("health.json", s.cfg.Agent.Health())
	b.json("config.json", s.cfg.Policy.Config())
	if output, err := s.cfg.Agent.Output(id); err == nil {
		defer output.Release()
		if log, err := s.cfg.Agent.Events(id); err == nil {
			events, _, _ := log.After(0)
			b.json("events.json", events)
		}
		b.dir("log", output.Dir)
		b.file("events.jsonl", output.Events)
	}
	if spec, err := s.cfg.Agent.Spec(id); err == nil {
		b.add("spec.json", spec)
	}
	for _, name := range slices.Sorted(maps.Keys(nodeFiles)) {
		b.file(name, nodeFiles[name])
	}
	if s.cfg.NodeState != nil {
		extra := s.cfg.NodeState()
		for _, name := range slices.Sorted(maps.Keys(extra)) {
			b.add("node/"+filepath.Base(name), extra[name])
		}
	}
	return errors.Join(b.err, b.tar.Close())
}

// bundle writes files into a tar, with secrets masked. After the first error it writes
// nothing.
type bundle struct {
	masker masker
	tar    *tar.Writer
	prefix string
	now    time.Time
	err    error
}

func (b *bundle) add(name string, data []byte) {
	if b.err != nil {
		return
	}
	data = b.masker.mask(data)
	b.err = b.tar.WriteHeader(&tar.Header{Name: b.prefix + name, Mode: 0o600, Size: int64(len(data)),
		ModTime: b.now, Typeflag: tar.TypeReg, Format: tar.FormatPAX})
	if b.err == nil {
		_, b.err = b.tar.Write(data)
	}
}

func (b *bundle) json(name string, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		data = []byte(err.Error())
	}
	b.add(name, append(data, '\n'))
}

// file adds a file of the node. It skips a file that does not exist; for one that it cannot
// read it adds NAME.error with the reason.
func (b *bundle) file(name, path string) {
	if b.err != nil {
		return
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		b.add(name+".error", []byte(err.Error()+"\n"))
		return
	}
	defer file.Close()
	b.read(name, file)
}

// read adds what is in an open file.
func (b *bundle) read(name string, file io.Reader) {
	data, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		b.add(name+".error", []byte(err.Error()+"\n"))
		return
	}
	b.add(name, data)
}

// dir adds the regular files of a directory. It skips a file that has been rotated away.
func (b *bundle) dir(name, path string) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return
	}
	defer root.Close()
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || b.err != nil {
			continue
		}
		if f, err := root.Open(e.Name()); err == nil {
			b.read(name+"/"+e.Name(), f)
			f.Close()
		}
	}
}
