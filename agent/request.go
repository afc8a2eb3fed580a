package agent

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// requestLimits are the durations of a request. A limit that the request does not
// name is the step's.
type requestLimits struct {
	timeout time.Duration
	silence time.Duration
}

// apply puts what the request says in place of the step's own limits. A timeout
// of the request bounds the whole run instead of each container.
func (l requestLimits) apply(res *Resolved, req *api.RunRequest) {
	for i := range res.Parts {
		p := &res.Parts[i]
		if l.timeout > 0 {
			p.Timeout = 0
		}
		if l.silence > 0 {
			p.SilenceTimeout = l.silence
		}
		if req.RebootExitCodes != nil {
			p.RebootExitCodes = req.RebootExitCodes
		}
	}
}

// checkRequest checks what does not need the policy.
func checkRequest(req *api.RunRequest) (requestLimits, error) {
	var lim requestLimits
	if req.ID != "" && !validID().MatchString(req.ID) {
		return lim, fault.BadField("id", "it is not 1 to 64 of a-z, A-Z, 0-9, _, . and -, starting with neither . nor -")
	}
	if (req.Step == "") == (req.Image == "") {
		return lim, fault.BadField("step", "either step or image is required, and not both")
	}
	if len(req.Route) > 64 {
		return lim, fault.BadField("route", "it is longer than 64 bytes")
	}
	for _, code := range req.RebootExitCodes {
		if code < 0 || code > 255 {
			return lim, fault.BadField("reboot_exit_codes", fmt.Sprintf("%d is no exit code (0 to 255)", code))
		}
	}
	var err error
	if lim.timeout, err = parseLimit("timeout", req.Timeout); err != nil {
		return lim, err
	}
	lim.silence, err = parseLimit("silence_timeout", req.SilenceTimeout)
	return lim, err
}

// parseLimit reads a duration. An absent one is none; zero is refused, so that
// nobody means "no limit" and gets "expired".
func parseLimit(field, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fault.BadField(field, fmt.Sprintf("%q is not a duration greater than zero, such as 90s or 1h30m", text))
	}
	return d, nil
}

// decodeNumbers is json.Unmarshal, but where any value is taken numbers stay as they
// are written: Ironic's agent makes an option of 1.0 another word than of 1.
func decodeNumbers(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return dec.Decode(into)
}

// hasher tells requests apart without keeping them: a plain hash in the journal
// would let a password in a request be guessed.
type hasher struct{ key []byte }

func openHasher(cfg Config) (*hasher, error) {
	path := filepath.Join(cfg.StateDir, "key")
	key, err := os.ReadFile(path)
	if err == nil && len(key) == sha256.Size*2 {
		return &hasher{key: key}, nil
	}
	key = []byte(newID(sha256.Size))
	if err := writeStable(path, key); err != nil && cfg.Persistent {
		return nil, &fault.Error{Code: fault.Node, Op: "write", Subject: path, Err: err,
			Remedy: "Check the directory given with --state"}
	}
	return &hasher{key: key}, nil
}

// writeStable is writeFile for what has to be whole after a power cut: with another
// key no request would be the same as before it.
func writeStable(path string, data []byte) error {
	temp := path + ".new"
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, path)
}

// of returns the hash of all of req but its id.
func (h *hasher) of(req *api.RunRequest) (string, error) {
	same := *req
	same.ID = ""
	data, err := json.Marshal(same)
	if err != nil {
		return "", fault.BadField("args", err.Error())
	}
	mac := hmac.New(sha256.New, h.key)
	mac.Write(data)
	return hex.EncodeToString(mac.Sum(nil)), nil
}
