package logs

import (
	"errors"
	"io/fs"
	"os"
	"slices"
)

// segment is one file of a log.
type segment struct {
	number uint64
	size   int64
}

// segments lists a log's files, oldest first. A segment that rotation removes
// while they are listed is left out.
func segments(root *os.Root) ([]segment, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var found []segment
	for _, e := range entries {
		n, ok := segmentNumber(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			found = append(found, segment{number: n, size: info.Size()})
		}
	}
	slices.SortFunc(found, func(a, b segment) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	return found, nil
}

// End returns the place where the log in dir ends now. It changes whenever
// something is written, so it shows silence without use of the clock. A log that does not
// exist yet ends at the zero Cursor. Errors are those of the file system.
func End(dir string) (Cursor, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Cursor{}, nil
	}
	if err != nil {
		return Cursor{}, err
	}
	defer root.Close()
	found, err := segments(root)
	if err != nil || len(found) == 0 {
		return Cursor{}, err
	}
	last := found[len(found)-1]
	return Cursor{Segment: last.number, Offset: last.size}, nil
}

// Size returns the bytes that the log in dir takes on disk. Errors are those of the file
// system.
func Size(dir string) (int64, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer root.Close()
	found, err := segments(root)
	var total int64
	for _, s := range found {
		total += s.size
	}
	return total, err
}
