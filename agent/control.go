package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
)

const (
	// controlName is the directory in a run's own that the container sees as
	// /run/careen. Everything in it is the container's word and is read as such.
	controlName  = "control"
	resultName   = "result.json"
	criticalName = "critical"
	// maxResult bounds a container's result in bytes.
	maxResult = 64 << 10
)

// readControl reads a regular file of the control directory. The container may
// have made it a pipe, a link out of there or too large: none of it harms.
func readControl(runDir, name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(filepath.Join(runDir, controlName))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	file, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, fmt.Errorf("it is larger than %d KiB", limit>>10)
	}
	return data, err
}

// readResult returns the JSON that the container left, or why it does not count.
func readResult(runDir string) (json.RawMessage, error) {
	data, err := readControl(runDir, resultName, maxResult)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, errors.New("it is not valid JSON")
	}
	if err := readable(data); err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, err
	}
	return compact.Bytes(), nil
}

// maxNumber bounds how many characters a number of a result may have. A reader in
// Python refuses whole documents for integers of more than 4300 digits.
const maxNumber = 400

// readable refuses valid JSON that who reads it later could not: what is on record
// and what the socket answers have the result inside, and no reader of JSON takes
// any depth or any number.
func readable(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	for depth := 0; ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '{' || token == '[' {
				depth++
			} else {
				depth--
			}
		case json.Number:
			if len(token) > maxNumber {
				return fmt.Errorf("it has a number of more than %d characters", maxNumber)
			}
		}
		if depth > api.MaxDepth {
			return fmt.Errorf("it nests deeper than %d levels", api.MaxDepth)
		}
	}
}

// resultReboot reads the members of a result that careen itself acts on.
func resultReboot(result json.RawMessage) (reboot bool, reason string) {
	var wish struct {
		Reboot any `json:"reboot"`
		Reason any `json:"reason"`
	}
	if json.Unmarshal(result, &wish) != nil || wish.Reboot != true {
		return false, ""
	}
	reason = "the container wrote it in its result"
	if s, ok := wish.Reason.(string); ok && s != "" && len(s) <= 200 {
		reason += ": " + strings.Join(strings.Fields(s), " ")
	}
	return true, reason
}

// criticalSection is a container's claim not to be stopped, on the agent's clock.
type criticalSection struct{ since, until time.Duration }

// claimName is a file in a run's directory, out of the container's reach, with the
// clock's readings of a claim's begin and end: its limit is the same for the agent
// that comes after this one.
const claimName = "critical.json"

// readCritical looks for a claim. A container that takes its file away and puts it
// back goes on with the claim it had, unless the agent saw it gone.
func (a *Agent) readCritical(runDir string, had *criticalSection) *criticalSection {
	if a.cfg.CriticalMax < 0 {
		return nil
	}
	data, err := readControl(runDir, criticalName, 4096)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		if had != nil {
			forgetClaim(runDir)
		}
		return nil
	}
	if had != nil {
		return had
	}
	if was := loadClaim(runDir); was != nil {
		return was
	}
	// Whatever else is wrong with the file: it is there, and that is the claim.
	length := a.cfg.CriticalMax
	if text := strings.TrimSpace(string(data)); err == nil && text != "" {
		if s, perr := strconv.ParseFloat(text, 64); perr == nil && s >= 0 && s < length.Seconds() {
			length = time.Duration(s * float64(time.Second))
		}
	}
	now := a.cfg.Clock()
	c := &criticalSection{since: now, until: now + length}
	c.save(runDir)
	return c
}

// save lets the next agent know of the claim. Where that fails the claim holds all
// the same, and longer if this agent ends before it.
func (c *criticalSection) save(runDir string) {
	if data, err := json.Marshal([]time.Duration{c.since, c.until}); err == nil {
		_ = writeFile(filepath.Join(runDir, claimName), data)
	}
}

func loadClaim(runDir string) *criticalSection {
	data, err := os.ReadFile(filepath.Join(runDir, claimName))
	var readings []time.Duration
	if err != nil || json.Unmarshal(data, &readings) != nil || len(readings) != 2 {
		return nil
	}
	return &criticalSection{since: readings[0], until: readings[1]}
}

func forgetClaim(runDir string) { _ = os.Remove(filepath.Join(runDir, claimName)) }
