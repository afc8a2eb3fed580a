package journal

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/agent/fault"
)

// Version is the version of the format that this package writes. It reads no newer one.
const Version = 1

const (
	fileName = "journal.jsonl"
	tempName = "journal.jsonl.new"
	// maxRecord bounds one record in bytes, so that a damaged file cannot exhaust memory.
	maxRecord = 4 << 20
	// slack is how many bytes of history are kept before compaction.
	slack = 1 << 20
)

// Journal is an open journal. Its methods may be called from several goroutines.
type Journal struct {
	dir  string
	disk Disk
	sync bool

	mu   sync.Mutex
	file File
	size int64
	// compactAt is the size from which on compaction is tried.
	compactAt int64
	seq       uint64
	live      map[string]json.RawMessage
	order     []string
	torn      int64
	bad       int
	// ragged says that a part of a record may be at the end, unnamed that the file's name
	// may not be stable: both are mended before the next record.
	ragged, unnamed bool
}

// Open opens the journal in dir, made if need be, and reads it. disk is [OS] if nil.
// The error has code conflict while another agent has the journal open, bad_config for a
// file of a newer version or another program, and otherwise node or space.
func Open(dir string, disk Disk) (*Journal, error) {
	if disk == nil {
		disk = OS{}
	}
	j := &Journal{dir: dir, disk: disk, compactAt: slack, live: map[string]json.RawMessage{}}
	if err := j.open(); err != nil {
		if j.file != nil {
			_ = j.file.Close()
		}
		return nil, Explain("open the journal in", dir, err)
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
	for {
		good, size, err := j.read()
		if errors.Is(err, errSetAside) {
			if err := j.file.Close(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if j.torn = size - good; j.torn > 0 {
			if err := j.file.Truncate(good); err != nil {
				return err
			}
		}
		j.size = good
		if good > 0 {
			return nil
		}
		if err := j.write(header()); err != nil {
			return err
		}
		return j.syncDir()
	}
}

// read opens, locks and loads the file.
func (j *Journal) read() (good, size int64, err error) {
	if j.file, err = j.disk.OpenFile(j.path(), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return 0, 0, err
	}
	if err := unix.Flock(int(j.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return 0, 0, &fault.Error{Code: fault.Conflict, Op: "open the journal in", Subject: j.dir, Err: err,
			Reason: "another agent uses it", Remedy: "Stop the other agent or give this one its own --state"}
	}
	data, err := os.ReadFile(j.path())
	if err != nil {
		return 0, 0, err
	}
	if good, err = j.load(data); err != nil {
		return 0, 0, err
	}
	return good, int64(len(data)), nil
}

// Entry is one value to record under a key.
type Entry struct {
	Key   string
	Value any
}

// Put records value under key. When it returns nil the record is on stable storage; when
// it returns an error the journal is as it was. The error has code space, node, or
// internal for a value that cannot be written.
func (j *Journal) Put(key string, value any) error { return j.PutAll([]Entry{{key, value}}) }

// PutAll is [Journal.Put] for several entries in one write: all are recorded, or none.
func (j *Journal) PutAll(entries []Entry) error {
	lines := make([]line, len(entries))
	for i, e := range entries {
		data, err := json.Marshal(e.Value)
		if err != nil {
			return j.internal(err)
		}
		lines[i] = line{Key: e.Key, Value: data}
	}
	return j.append(lines)
}

// Forget records that key is gone. Errors are those of [Journal.Put].
func (j *Journal) Forget(key string) error { return j.append([]line{{Key: key}}) }

func (j *Journal) append(lines []line) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return Explain("write the journal in", j.dir, os.ErrClosed)
	}
	var text []byte
	for i := range lines {
		lines[i].Seq = j.seq + 1 + uint64(i)
		one, err := format(lines[i])
		if err != nil {
			return j.internal(err)
		}
		text = append(text, one...)
	}
	if err := j.write(text); err != nil {
		return Explain("write the journal in", j.dir, err)
	}
	for _, l := range lines {
		j.apply(l)
	}
	if j.size > j.compactAt && j.size > 4*j.liveBytes() {
		// The records are stable. A compaction that fails is tried again later.
		j.compactAt = slack
		if err := j.compact(); err != nil {
			j.compactAt = j.size + slack
		}
	}
	return nil
}

func (j *Journal) internal(err error) error {
	return &fault.Error{Code: fault.Internal, Op: "write the journal in", Subject: j.dir, Err: err}
}

// write appends whole lines and waits until they are stable. Lines that could not be
// written whole are taken back.
func (j *Journal) write(text []byte) error {
	if err := j.mend(); err != nil {
		return err
	}
	n, err := j.file.Write(text)
	if err == nil {
		err = j.syncFile(j.file)
	}
	if err != nil {
		j.ragged = n > 0
		return errors.Join(err, j.mend())
	}
	j.size += int64(n)
	return nil
}

// mend makes up for an earlier failure: a record that follows a part of another one could
// not be read, and one in a file without a stable name would not be found.
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

// Compact rewrites the journal with the last record of each key only. Errors are those of
// [Journal.Put].
func (j *Journal) Compact() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return Explain("compact the journal in", j.dir, os.ErrClosed)
	}
	if err := j.compact(); err != nil {
		return Explain("compact the journal in", j.dir, err)
	}
	return nil
}

func (j *Journal) compact() error {
	temp := filepath.Join(j.dir, tempName)
	file, err := j.disk.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := j.copyLive(file)
	if err == nil {
		err = j.disk.Rename(temp, j.path())
	}
	if err != nil {
		_ = file.Close()
		return errors.Join(err, os.Remove(temp))
	}
	_ = j.file.Close()
	j.file, j.size, j.ragged, j.unnamed = file, size, false, true
	return j.mend()
}

// copyLive writes a whole journal into file and locks it.
func (j *Journal) copyLive(file File) (int64, error) {
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return 0, err
	}
	all := header()
	for i, key := range j.order {
		text, err := format(line{Seq: uint64(i) + 1, Key: key, Value: j.live[key]})
		if err != nil {
			return 0, err
		}
		all = append(all, text...)
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

// Each calls fn for the last record of each key, in the order in which the keys were
// first recorded. It returns fn's error.
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

// Trim forgets the keys that were first recorded the longest ago, until at most most are
// left. Errors are those of [Journal.Put].
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

// Damage returns how many bytes of a torn end were dropped when the journal was opened,
// and how many damaged lines were passed over.
func (j *Journal) Damage() (tornBytes int64, damaged int) { return j.torn, j.bad }

// Stable reports whether the journal lies on a file system that can survive a reboot:
// anything but tmpfs and ramfs.
func (j *Journal) Stable() bool { return j.sync }

// Close closes the journal. Records can no longer be written.
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
