package journal_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/agent/store/journal"
)

const file = "journal.jsonl"

func open(t require.TestingT, dir string) *journal.Journal {
	j, err := journal.Open(dir, nil)
	require.NoError(t, err)
	return j
}

// content returns the keys in order and the last value of each.
func content(t require.TestingT, j *journal.Journal) (keys []string, values map[string]int) {
	values = map[string]int{}
	require.NoError(t, j.Each(func(key string, value json.RawMessage) error {
		keys = append(keys, key)
		var n int
		err := json.Unmarshal(value, &n)
		values[key] = n
		return err
	}))
	return keys, values
}

func TestTheLastRecordOfAKeyIsTheTruth(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	for i, key := range []string{"a", "b", "a", "c", "b"} {
		require.NoError(t, j.Put(key, i))
	}
	require.NoError(t, j.Forget("c"))
	require.NoError(t, j.Put("c", 9))
	check := func() {
		keys, values := content(t, j)
		require.Equal(t, []string{"a", "b", "c"}, keys)
		require.Equal(t, map[string]int{"a": 2, "b": 4, "c": 9}, values)
	}
	check()
	require.NoError(t, j.Close())
	j = open(t, dir)
	check()
	require.NoError(t, j.Compact())
	check()
	require.NoError(t, j.Put("a", 2))
	require.NoError(t, j.Close())
	j = open(t, dir)
	check()
	require.NoError(t, j.Close())
	require.Error(t, j.Put("a", 1), "a closed journal takes nothing")
}

func TestTornAndDamagedRecords(t *testing.T) {
	whole := func() []byte {
		dir := t.TempDir()
		j := open(t, dir)
		for i := range 5 {
			require.NoError(t, j.Put(fmt.Sprint("k", i), i))
		}
		require.NoError(t, j.Close())
		data, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		return data
	}()
	t.Run("cut at any byte", func(t *testing.T) {
		before := 6
		for cut := len(whole); cut >= 0; cut-- {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), whole[:cut], 0o600))
			j := open(t, dir)
			keys, _ := content(t, j)
			require.LessOrEqual(t, len(keys), before)
			before = len(keys)
			// It can be written to as if nothing had happened.
			require.NoError(t, j.Put("new", 7))
			require.NoError(t, j.Close())
			j = open(t, dir)
			keys, values := content(t, j)
			require.Len(t, keys, before+1)
			require.Equal(t, 7, values["new"])
			_, damaged := j.Damage()
			require.Zero(t, damaged)
			require.NoError(t, j.Close())
		}
		require.Zero(t, before)
	})
	t.Run("a flipped bit in the middle", func(t *testing.T) {
		dir := t.TempDir()
		data := append([]byte(nil), whole...)
		data[len(data)/2] ^= 4
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), data, 0o600))
		j := open(t, dir)
		keys, _ := content(t, j)
		require.Len(t, keys, 4)
		_, damaged := j.Damage()
		require.Equal(t, 1, damaged)
		require.NoError(t, j.Close())
	})
	t.Run("a flipped bit in the header", func(t *testing.T) {
		dir := t.TempDir()
		data := append([]byte(nil), whole...)
		data[3] ^= 4
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), data, 0o600))
		j := open(t, dir)
		keys, _ := content(t, j)
		require.Len(t, keys, 5)
		_, damaged := j.Damage()
		require.Equal(t, 1, damaged)
		require.NoError(t, j.Close())
	})
	t.Run("nothing but NULs", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), make([]byte, 5000), 0o600))
		j := open(t, dir)
		_, damaged := j.Damage()
		require.Equal(t, 1, damaged)
		require.NoError(t, j.Put("new", 7))
		require.NoError(t, j.Close())
		kept, err := os.ReadFile(filepath.Join(dir, file+".damaged"))
		require.NoError(t, err)
		require.Len(t, kept, 5000)
		j = open(t, dir)
		keys, _ := content(t, j)
		require.Equal(t, []string{"new"}, keys)
		require.NoError(t, j.Close())
	})
	t.Run("some other file", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte("precious\ndata\n"), 0o600))
		_, err := journal.Open(dir, nil)
		require.Equal(t, fault.BadConfig, fault.CodeOf(err))
		data, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		require.Equal(t, "precious\ndata\n", string(data))
	})
}

// TestACrashAtAnyFailpoint copies the directory at each failpoint, as a crash
// would leave it, and opens the copy.
func TestACrashAtAnyFailpoint(t *testing.T) {
	dir := t.TempDir()
	crashes := t.TempDir()
	n := 0
	var names []string
	j, err := journal.Open(dir, journal.Faulty{Disk: journal.OS{}, Failpoint: func(name string) {
		n++
		names = append(names, name)
		require.NoError(t, os.CopyFS(filepath.Join(crashes, fmt.Sprint(n)), os.DirFS(dir)))
	}})
	require.NoError(t, err)
	for i := range 4 {
		require.NoError(t, j.Put("a", i))
		require.NoError(t, j.Put(fmt.Sprint("b", i), i))
	}
	require.NoError(t, j.Compact())
	require.NoError(t, j.Close())
	require.Contains(t, names, "journal.compact-before-rename")
	last := -1
	for i := 1; i <= n; i++ {
		copied := filepath.Join(crashes, fmt.Sprint(i))
		again := open(t, copied)
		_, values := content(t, again)
		if v, ok := values["a"]; ok {
			require.GreaterOrEqual(t, v, last, "after %s", names[i-1])
			last = v
		}
		require.NoError(t, again.Put("after", 1))
		require.NoError(t, again.Close())
		left, err := filepath.Glob(filepath.Join(copied, "*.new"))
		require.NoError(t, err)
		require.Empty(t, left)
	}
	require.Equal(t, 3, last)
}

func TestItCompactsItself(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	big := make([]byte, 8<<10)
	for range 400 {
		require.NoError(t, j.Put("k", big))
	}
	info, err := os.Stat(filepath.Join(dir, file))
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(2<<20), "400 records of 11 KiB")
	require.NoError(t, j.Close())
}

func TestOnlyOneOpensIt(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	_, err := journal.Open(dir, nil)
	require.Equal(t, fault.Conflict, fault.CodeOf(err))
	require.NoError(t, j.Compact())
	_, err = journal.Open(dir, nil)
	require.Equal(t, fault.Conflict, fault.CodeOf(err), "also after it was replaced")
	require.NoError(t, j.Close())
	require.NoError(t, open(t, dir).Close())
}

// TestAgainstAMap draws any order of operations and compares with a map.
func TestAgainstAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		j := open(t, dir)
		want := map[string]int{}
		key := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"put", "put", "put", "forget", "compact", "reopen"}).Draw(t, "op") {
			case "put":
				k, v := key.Draw(t, "key"), rapid.Int().Draw(t, "value")
				require.NoError(t, j.Put(k, v))
				want[k] = v
			case "forget":
				k := key.Draw(t, "key")
				require.NoError(t, j.Forget(k))
				delete(want, k)
			case "compact":
				require.NoError(t, j.Compact())
			case "reopen":
				require.NoError(t, j.Close())
				j = open(t, dir)
			}
			_, got := content(t, j)
			require.Equal(t, want, got)
		}
		require.NoError(t, j.Close())
	})
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("00000000 {}\n"))
	f.Add([]byte("\n\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), data, 0o600))
		j, err := journal.Open(dir, nil)
		if err != nil {
			require.Equal(t, fault.BadConfig, fault.CodeOf(err))
			return
		}
		require.NoError(t, j.Put("k", 1))
		require.NoError(t, j.Close())
	})
}
