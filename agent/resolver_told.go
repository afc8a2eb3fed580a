package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/careen-project/careen/agent/fault"
)

// told is what a resolver was told over the socket. Ironic's agent holds the same
// in its memory: until it is restarted itself, or the node.
type told struct {
	// BootID is that of the kernel at the time: after a reboot the ramdisk's own
	// settings hold, as they do for Ironic's agent.
	BootID string `json:"boot_id"`
	// Options are the conductor's, nil where it has sent none.
	Options map[string]any `json:"options"`
	// Reserved are the names that steps must not have.
	Reserved []string `json:"reserved,omitempty"`
}

// maxTold bounds the file, in bytes; bodies of requests are smaller.
const maxTold = 4 << 20

// readTold returns what was kept in this boot. The error is for the one who asks
// for something that the policy has to decide on.
func readTold(path string) (told, error) {
	t, err := parseTold(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	return told{}, &fault.Error{Code: fault.BadConfig, Op: "apply the container policy", Err: err,
		Reason: fmt.Sprintf("the conductor's settings of before the agent's restart cannot be read from %s: %v", path, err),
		Remedy: "Restart ironic-python-agent, which gets them from the conductor, or send them with PATCH /v1/config"}
}

func parseTold(path string) (told, error) {
	file, err := os.Open(path)
	if err != nil {
		return told{}, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxTold+1))
	if err != nil {
		return told{}, err
	}
	if len(data) > maxTold {
		return told{}, fmt.Errorf("it is larger than %d bytes", maxTold)
	}
	var t told
	if err := decodeNumbers(data, &t); err != nil {
		return told{}, err
	}
	now, err := bootID()
	switch {
	case err != nil:
		return told{}, err
	case t.BootID == "":
		return told{}, errors.New("it does not say in which boot it was written")
	case t.BootID != now:
		return told{}, nil
	}
	return t, nil
}

// write keeps t at path, whole or not at all; "" keeps nothing.
func (t told) write(path string) error {
	if path == "" {
		return nil
	}
	err := t.replace(path)
	if err == nil {
		return nil
	}
	return &fault.Error{Code: fault.Node, Op: "keep the conductor's settings in", Subject: path, Err: err,
		Remedy: "Make room in the agent's --run-dir"}
}

func (t told) replace(path string) error {
	var err error
	if t.BootID, err = bootID(); err != nil {
		return err
	}
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
