package exec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/machine"
	"github.com/careen-project/careen/rootfs/file"
	"github.com/careen-project/careen/runtime/container"
	"github.com/careen-project/careen/runtime/logs"
)

const (
	// resultName and criticalName are files in the control directory, which the container
	// sees as /run/careen. Everything in it comes from the container and is untrusted.
	resultName   = "result.json"
	criticalName = "critical"
	// maxResult bounds a container's result in bytes, maxNumber a number in it in
	// characters: a reader in Python refuses integers of more than 4300 digits.
	maxResult = 64 << 10
	maxNumber = 400
	maxClaim  = 4096
)

// readControl reads a regular file of the control directory. The container may have made
// it a pipe, a link out of the directory, or too large: none of it does harm.
func readControl(dir container.Dir, name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(dir.Control())
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	data, err := file.ReadAllLimited(f, limit)
	if errors.Is(err, file.ErrTooLarge) {
		return nil, fmt.Errorf("it is larger than %d KiB", limit>>10)
	}
	return data, err
}

// readResult returns the JSON that the container left, or why it does not count.
func readResult(dir container.Dir) (json.RawMessage, error) {
	data, err := readControl(dir, resultName, maxResult)
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

// readable refuses valid JSON that later readers could not read: records and answers of
// the API contain the result, and readers of JSON limit depth and numbers.
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

// readClaim looks for the critical section that the container claims. A container that
// removes its file and makes it again goes on with the claim it had, unless the agent saw
// it gone. The limits of a claim are kept out of the container's reach, so that they hold
// for the next agent.
func (x *Executor) readClaim(dir container.Dir, had *machine.Claim) *machine.Claim {
	if x.cfg.CriticalMax < 0 {
		return nil
	}
	data, err := readControl(dir, criticalName, maxClaim)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		if had != nil {
			dropClaim(dir)
		}
		return nil
	}
	if had != nil {
		return had
	}
	if earlier := loadClaim(dir); earlier != nil {
		return earlier
	}
	// Whatever else is wrong with the file: it is there, and that is the claim.
	length := x.cfg.CriticalMax
	if text := strings.TrimSpace(string(data)); err == nil && text != "" {
		if s, perr := strconv.ParseFloat(text, 64); perr == nil && s >= 0 && s < length.Seconds() {
			length = time.Duration(s * float64(time.Second))
		}
	}
	now := x.cfg.Clock()
	claim := &machine.Claim{Since: now, Until: now + length}
	// Where this fails the claim holds all the same, and longer if this agent ends before it.
	if data, err := json.Marshal([]time.Duration{claim.Since, claim.Until}); err == nil {
		_ = file.Replace(dir.Claim(), data, 0o600, file.Volatile)
	}
	return claim
}

func loadClaim(dir container.Dir) *machine.Claim {
	data, err := file.ReadLimited(dir.Claim(), maxClaim)
	var readings []time.Duration
	if err != nil || json.Unmarshal(data, &readings) != nil || len(readings) != 2 {
		return nil
	}
	return &machine.Claim{Since: readings[0], Until: readings[1]}
}

func dropClaim(dir container.Dir) { _ = os.Remove(dir.Claim()) }

// tail returns the last lines of output, each cut to a sensible length.
func tail(dir string, n int) []string {
	const most = 1000
	lines, err := logs.Tail(dir, n)
	if err != nil {
		return []string{"the output cannot be read: " + err.Error()}
	}
	var out []string
	open := map[string]bool{}
	for _, l := range lines {
		text := string(l.Text)
		if open[l.Stream] && len(out) > 0 {
			text = out[len(out)-1] + text
			out = out[:len(out)-1]
		}
		open[l.Stream] = l.Partial
		if len(text) > most {
			text = strings.ToValidUTF8(text[:most], "") + " ..."
		}
		out = append(out, text)
	}
	return out
}
