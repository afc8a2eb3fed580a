package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
)

// Version is the version of the format that this package writes. It reads no
// newer one.
const Version = 1

const (
	fileName = "journal.jsonl"
	tempName = "journal.jsonl.new"
	// maxRecord bounds one record in bytes, so that a damaged file cannot take the
	// node's memory.
	maxRecord = 4 << 20
	// slack is how many bytes of history are kept before they are worth compacting.
	slack = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entry is one line's JSON. Value is absent in the record that forgets a key.
type entry struct {
	Version int             `json:"v,omitempty"` // in the header only
	Seq     uint64          `json:"n,omitempty"`
	Key     string          `json:"k,omitempty"`
	Value   json.RawMessage `json:"d,omitempty"`
}

// Options change how a journal behaves. The zero value is right for the agent.
type Options struct {
	// Failpoint is called with a name between any two steps of a write. Tests kill
	// the process there.
	Failpoint func(name string)
}

// Journal is an open journal. Its methods may be called from several goroutines.
type Journal struct {
	dir  string
	opts Options
	sync bool

	mu   sync.Mutex
	file *os.File
	size int64
	// compactAt is the size from which on compacting is worth a try.
	compactAt int64
	seq       uint64
	live      map[string]json.RawMessage
	order     []string
	torn      int64
	bad       int
	// ragged says that half a record may be at the end, unnamed that the file's name
	// may not be stable: both are mended before the next record.
	ragged, unnamed bool
}

// Open opens the journal in dir, made if need be, and reads it.
func Open(dir string, opts Options) (*Journal, error) {
	if opts.Failpoint == nil {
		opts.Failpoint = func(string) {}
	}
	j := &Journal{dir: dir, opts: opts, compactAt: slack, live: map[string]json.RawMessage{}}
	if err := j.open(); err != nil {
		if j.file != nil {
			j.file.Close()
		}
		return nil, explain("open the journal in", dir, err)
	}
	return j, nil
}

func (j *Journal) open() error {
	if err := makeDir(j.dir); err != nil {
		return err
	}
	j.sync = onDisk(j.dir)
	// What a crash during compaction left was never the journal.
	_ = os.Remove(filepath.Join(j.dir, tempName))
	file, err := os.OpenFile(j.path(), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	j.file = file
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return &fault.Error{Code: fault.Conflict, Op: "open the journal in", Subject: j.dir, Err: err,
			Reason: "another agent uses it", Remedy: "Stop the other agent or give this one its own --state"}
	}
	data, err := os.ReadFile(j.path())
	if err != nil {
		return err
	}
	good, err := j.load(data)
	if err != nil {
		return err
	}
	if j.torn = int64(len(data)) - good; j.torn > 0 {
		if err := file.Truncate(good); err != nil {
			return err
		}
	}
	j.size = good
	if good > 0 {
		return nil
	}
	if err := j.write(entry{Version: Version}); err != nil {
		return err
	}
	return j.syncDir()
}

// load reads all records and returns where the last good one ends. What follows
// it is the torn end; what is unreadable before it is damage.
func (j *Journal) load(data []byte) (good int64, err error) {
	var at int64
	unread := 0
	for len(data) > 0 {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		at += int64(len(data) - len(rest))
		data = rest
		e, ok := parse(line)
		if !whole || !ok {
			unread++
			continue
		}
		if e.Version > Version {
			return 0, &fault.Error{Code: fault.BadConfig, Op: "read the journal in", Subject: j.dir,
				Reason: fmt.Sprintf("it has format %d, and this careen knows up to %d", e.Version, Version),
				Remedy: "Run the careen that wrote it, or give this one another --state"}
		}
		if good == 0 && (e.Version == 0 || unread > 0) {
			return 0, j.foreign()
		}
		j.apply(e)
		j.bad += unread
		good, unread = at, 0
	}
	if good == 0 && unread > 1 {
		return 0, j.foreign()
	}
	return good, nil
}

// foreign refuses a file that is no journal rather than write over it.
func (j *Journal) foreign() error {
	return &fault.Error{Code: fault.BadConfig, Op: "read the journal", Subject: j.path(),
		Reason: "it does not start with a journal's header", Remedy: "Move the file away, or give another --state"}
}

func (j *Journal) apply(e entry) {
	if e.Key == "" {
		return
	}
	j.seq = max(j.seq, e.Seq)
	if e.Value == nil {
		delete(j.live, e.Key)
		j.order = slices.DeleteFunc(j.order, func(key string) bool { return key == e.Key })
		return
	}
	if _, known := j.live[e.Key]; !known {
		j.order = append(j.order, e.Key)
	}
	j.live[e.Key] = e.Value
}

// parse reads a line without its newline.
func parse(line []byte) (e entry, ok bool) {
	if len(line) > maxRecord || len(line) < 10 || line[8] != ' ' {
		return e, false
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(line[9:], castagnoli) {
		return e, false
	}
	return e, json.Unmarshal(line[9:], &e) == nil
}

// format returns e as a line.
func format(e entry) ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(body)+10 > maxRecord {
		return nil, fmt.Errorf("a record of %d bytes is too long", len(body))
	}
	line := make([]byte, 0, len(body)+10)
	line = fmt.Appendf(line, "%08x ", crc32.Checksum(body, castagnoli))
	return append(append(line, body...), '\n'), nil
}

// Put records value under key. When it returns nil the record is on stable
// storage; when it returns an error the journal is as it was before.
func (j *Journal) Put(key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return j.append(entry{Key: key, Value: data})
}

// Forget records that key is gone.
func (j *Journal) Forget(key string) error { return j.append(entry{Key: key}) }

func (j *Journal) append(e entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return explain("write the journal in", j.dir, os.ErrClosed)
	}
	e.Seq = j.seq + 1
	if err := j.write(e); err != nil {
		return explain("write the journal in", j.dir, err)
	}
	j.apply(e)
	if j.size > j.compactAt && j.size > 4*j.liveBytes() {
		// The record is stable: that there is no room for a second journal just now is no
		// reason to say otherwise. It is tried again when there is more to gain.
		j.compactAt = slack
		if err := j.compact(); err != nil {
			j.compactAt = j.size + slack
		}
	}
	return nil
}

// write appends one line and waits until it is stable. A line that could not be
// written whole is taken back.
func (j *Journal) write(e entry) error {
	line, err := format(e)
	if err != nil {
		return &fault.Error{Code: fault.Internal, Op: "write the journal in", Subject: j.dir, Err: err}
	}
	if err := j.mend(); err != nil {
		return err
	}
	j.opts.Failpoint("journal.before-write")
	half := len(line) / 2
	n, err := j.file.Write(line[:half])
	if err == nil {
		j.opts.Failpoint("journal.torn")
		var m int
		m, err = j.file.Write(line[half:])
		n += m
	}
	if err == nil {
		j.opts.Failpoint("journal.before-sync")
		err = j.syncFile(j.file)
	}
	if err != nil {
		j.ragged = n > 0
		return errors.Join(err, j.mend())
	}
	j.size += int64(n)
	j.opts.Failpoint("journal.after-write")
	return nil
}

// mend makes up for what failed earlier: a record that follows half of another one
// could not be read, and one in a file without a name would not be found.
func (j *Journal) mend() error {
	if j.ragged {
		if err := j.file.Truncate(j.size); err != nil {
			return err
		}
		j.ragged = false
	}
	if j.unnamed {
		if err := j.syncDir(); err != nil {
			return err
		}
		j.unnamed = false
	}
	return nil
}

// Compact rewrites the journal with the last record of each key only.
func (j *Journal) Compact() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return explain("compact the journal in", j.dir, os.ErrClosed)
	}
	if err := j.compact(); err != nil {
		return explain("compact the journal in", j.dir, err)
	}
	return nil
}

func (j *Journal) compact() error {
	temp := filepath.Join(j.dir, tempName)
	file, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := j.copyLive(file)
	if err == nil {
		j.opts.Failpoint("journal.compact-before-rename")
		err = os.Rename(temp, j.path())
	}
	if err != nil {
		file.Close()
		return errors.Join(err, os.Remove(temp))
	}
	j.opts.Failpoint("journal.compact-after-rename")
	j.file.Close()
	j.file, j.size, j.ragged, j.unnamed = file, size, false, true
	return j.mend()
}

// copyLive writes a whole journal into file and locks it.
func (j *Journal) copyLive(file *os.File) (int64, error) {
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return 0, err
	}
	var all []byte
	header, err := format(entry{Version: Version})
	if err != nil {
		return 0, err
	}
	all = append(all, header...)
	for i, key := range j.order {
		line, err := format(entry{Seq: uint64(i) + 1, Key: key, Value: j.live[key]})
		if err != nil {
			return 0, err
		}
		all = append(all, line...)
	}
	if _, err := file.Write(all); err != nil {
		return 0, err
	}
	return int64(len(all)), j.syncFile(file)
}

func (j *Journal) liveBytes() (total int64) {
	for key, value := range j.live {
		total += int64(len(key) + len(value) + 40)
	}
	return total
}

// Each calls fn for the last record of each key, in the order in which the keys
// were first recorded.
func (j *Journal) Each(fn func(key string, value json.RawMessage) error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, key := range j.order {
		if err := fn(key, j.live[key]); err != nil {
			return err
		}
	}
	return nil
}

// Get returns the last record of a key.
func (j *Journal) Get(key string) (json.RawMessage, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	value, ok := j.live[key]
	return value, ok
}

// Trim forgets the keys that were first recorded the longest ago, until at most most
// are left.
func (j *Journal) Trim(most int) error {
	for {
		j.mu.Lock()
		if len(j.order) <= most {
			j.mu.Unlock()
			return nil
		}
		oldest := j.order[0]
		j.mu.Unlock()
		if err := j.Forget(oldest); err != nil {
			return err
		}
	}
}

// Damage returns how many bytes of a torn last record were dropped when the
// journal was opened, and how many damaged records were passed over.
func (j *Journal) Damage() (tornBytes int64, damaged int) { return j.torn, j.bad }

// Stable reports whether the journal lies on a file system that can survive a
// reboot at all: anything but tmpfs and ramfs.
func (j *Journal) Stable() bool { return j.sync }

// Close gives the journal up.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

func (j *Journal) path() string { return filepath.Join(j.dir, fileName) }
