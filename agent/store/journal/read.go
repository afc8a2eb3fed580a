package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/careen-project/careen/agent/fault"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// line is one line's JSON. Value is absent in the record that forgets a key.
type line struct {
	Version int             `json:"v,omitempty"` // in the header only
	Seq     uint64          `json:"n,omitempty"`
	Key     string          `json:"k,omitempty"`
	Value   json.RawMessage `json:"d,omitempty"`
}

// parse reads a line without its newline.
func parse(text []byte) (l line, ok bool) {
	if len(text) > maxRecord || len(text) < 10 || text[8] != ' ' {
		return l, false
	}
	sum, err := strconv.ParseUint(string(text[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(text[9:], castagnoli) {
		return l, false
	}
	return l, json.Unmarshal(text[9:], &l) == nil
}

// format returns l as a line.
func format(l line) ([]byte, error) {
	body, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	if len(body)+10 > maxRecord {
		return nil, fmt.Errorf("a record of %d bytes is too long", len(body))
	}
	text := make([]byte, 0, len(body)+10)
	text = fmt.Appendf(text, "%08x ", crc32.Checksum(body, castagnoli))
	return append(append(text, body...), '\n'), nil
}

// load applies all records and returns where the last good one ends. What follows it is
// the torn end; what cannot be read before it is damage.
func (j *Journal) load(data []byte) (good int64, err error) {
	var at int64
	unread := 0
	for rest := data; len(rest) > 0; {
		text, next, whole := bytes.Cut(rest, []byte{'\n'})
		at += int64(len(rest) - len(next))
		rest = next
		l, ok := parse(text)
		if !whole || !ok {
			unread++
			continue
		}
		if l.Version > Version {
			return 0, &fault.Error{Code: fault.BadConfig, Op: "read the journal in", Subject: j.dir,
				Reason: fmt.Sprintf("it has format %d, and this careen knows up to %d", l.Version, Version),
				Remedy: "Run the careen that wrote it, or give this one another --state"}
		}
		if good == 0 && l.Version == 0 && unread == 0 {
			unread = 1 // the header is missing
		}
		j.apply(l)
		j.bad += unread
		good, unread = at, 0
	}
	if good > 0 || len(data) == 0 || bytes.HasPrefix(header(), data) {
		return good, nil
	}
	if isText(data) {
		return 0, &fault.Error{Code: fault.BadConfig, Op: "read the journal", Subject: j.path(),
			Reason: "it does not start with a journal's header", Remedy: "Move the file away, or give another --state"}
	}
	return 0, j.setAside()
}

// isText reports whether a file without a readable line is text of another program.
func isText(data []byte) bool {
	first, _, whole := bytes.Cut(data, []byte{'\n'})
	if _, err := strconv.ParseUint(string(first[:min(8, len(first))]), 16, 32); err == nil && len(first) > 8 {
		return false // a checksum
	}
	return whole && utf8.Valid(data) && !slices.ContainsFunc([]rune(string(data)), func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r'
	})
}

// errSetAside says that the file could not be read and has another name now.
var errSetAside = errors.New("the journal was set aside")

// setAside keeps a journal that cannot be read under another name. It returns
// [errSetAside], or why the file cannot be renamed.
func (j *Journal) setAside() error {
	j.bad++
	if err := os.Rename(j.path(), j.path()+".damaged"); err != nil {
		return err
	}
	return errSetAside
}

func header() []byte {
	text, err := format(line{Version: Version})
	if err != nil {
		panic(err) // it has no value that cannot be written
	}
	return text
}

func (j *Journal) apply(l line) {
	if l.Key == "" {
		return
	}
	j.seq = max(j.seq, l.Seq)
	if l.Value == nil {
		delete(j.live, l.Key)
		j.order = slices.DeleteFunc(j.order, func(key string) bool { return key == l.Key })
		return
	}
	if _, known := j.live[l.Key]; !known {
		j.order = append(j.order, l.Key)
	}
	j.live[l.Key] = l.Value
}
