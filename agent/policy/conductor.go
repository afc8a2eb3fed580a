package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/rootfs/procfs"
)

// conductorSettings are the options that the conductor sent at lookup, as they are
// stored. Ironic's agent holds the same in memory until it, or the node, restarts.
type conductorSettings struct {
	// BootID is the kernel's boot id when the file was written. After a reboot the
	// ramdisk's own settings apply, as they do in Ironic's agent.
	BootID string `json:"boot_id"`
	// Options are nil if the conductor has sent none.
	Options map[string]any `json:"options"`
}

// maxConductorFile is the largest size of the file, in bytes. Request bodies are smaller.
const maxConductorFile = 4 << 20

// readConductor returns the settings that were stored in this boot. An error makes the
// policy refuse everything that the settings could forbid.
func readConductor(path string) (conductorSettings, error) {
	s, err := parseConductor(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	return conductorSettings{}, &fault.Error{Code: fault.BadConfig, Op: "apply the container policy", Err: err,
		Reason: fmt.Sprintf("cannot read the saved conductor settings in %s: %v", path, err),
		Remedy: "Restart ironic-python-agent, which gets them from the conductor, or send them with PATCH /v1/config"}
}

func parseConductor(path string) (s conductorSettings, err error) {
	data, err := file.ReadLimited(path, maxConductorFile)
	if err != nil {
		return s, err
	}
	// Numbers stay as they are written: IPA makes another option of 1.0 than of 1.
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&s); err != nil {
		return conductorSettings{}, err
	}
	now, err := procfs.BootID()
	switch {
	case err != nil:
		return conductorSettings{}, err
	case s.BootID == "":
		return conductorSettings{}, errors.New("the file has no boot_id")
	case s.BootID != now:
		return conductorSettings{}, nil
	}
	return s, nil
}

// writeConductor stores the options at path; with "" it stores nothing.
func writeConductor(path string, options map[string]any) error {
	if path == "" {
		return nil
	}
	boot, err := procfs.BootID()
	var data []byte
	if err == nil {
		data, err = json.Marshal(conductorSettings{BootID: boot, Options: options})
	}
	if err == nil {
		err = file.Replace(path, data, 0o600, file.Volatile)
	}
	if err != nil {
		return &fault.Error{Code: fault.Node, Op: "save the conductor settings in", Subject: path, Err: err,
			Remedy: "Make room in the agent's --run-dir"}
	}
	return nil
}

// SetConductor replaces the options that the conductor sent before, and returns the
// settings that are in force then. On an error nothing has changed: [fault.BadConfig] if
// IPA's files are not valid, [fault.Node] if the options cannot be saved.
func (p *Policy) SetConductor(options map[string]any) (api.Config, error) {
	if err := p.setConductor(options); err != nil {
		return api.Config{}, err
	}
	return p.Config(), nil
}

func (p *Policy) setConductor(options map[string]any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := map[string]any{}
	maps.Copy(next, options)
	if err := p.reload(); err != nil {
		return err
	}
	// Save before replying, so that a setting that was acknowledged survives a restart.
	if p.unreadable != nil || !reflect.DeepEqual(next, p.conductor) {
		if err := writeConductor(p.conductorFile, next); err != nil {
			return err
		}
	}
	p.conductor, p.unreadable = next, nil
	p.override()
	return nil
}
