package logs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/careen-project/careen/runtime/logs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text joins what was read as the container wrote it.
func text(lines []logs.Line, stream string) string {
	var b strings.Builder
	for _, l := range lines {
		if l.Stream != stream {
			continue
		}
		b.Write(l.Text)
		if !l.Partial {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func read(t *testing.T, dir string, opts logs.ReadOptions) []logs.Line {
	t.Helper()
	var lines []logs.Line
	require.NoError(t, logs.Read(t.Context(), dir, opts, func(l logs.Line) error {
		l.Text = bytes.Clone(l.Text)
		lines = append(lines, l)
		return nil
	}))
	return lines
}

func write(t *testing.T, dir string, limit int64, stdout string) {
	t.Helper()
	w, err := logs.OpenWriter(dir, limit)
	require.NoError(t, err)
	_, err = w.Stream(logs.Stdout).Write([]byte(stdout))
	require.NoError(t, err)
	require.NoError(t, w.Close())
}

func TestOutputSurvivesByteForByte(t *testing.T) {
	long := strings.Repeat("x", logs.MaxText)
	for name, output := range map[string]string{
		"nothing":                 "",
		"a line":                  "hello\n",
		"no newline at the end":   "hello",
		"empty lines":             "\n\n\n",
		"carriage returns":        "10%\r20%\r\nx\r\n",
		"NUL and escapes":         "\x00\x1b[31mred\x1b[0m\n",
		"invalid UTF-8":           "\xff\xfe\x80abc\xc3\n\xc3",
		"exactly the longest":     long + "\n",
		"one more":                long + "y\n",
		"exactly, then nothing":   long,
		"several times the limit": strings.Repeat(long, 3) + "end\nnext\n",
	} {
		for _, chunk := range []int{1 << 20, 4096, 7} {
			t.Run(fmt.Sprintf("%s in chunks of %d", name, chunk), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "log")
				w, err := logs.OpenWriter(dir, 0)
				require.NoError(t, err)
				out := w.Stream(logs.Stdout)
				for rest := []byte(output); len(rest) > 0; {
					n, err := out.Write(rest[:min(chunk, len(rest))])
					require.NoError(t, err)
					rest = rest[n:]
				}
				require.NoError(t, out.Close())
				require.NoError(t, w.Close())
				require.Equal(t, output, text(read(t, dir, logs.ReadOptions{}), logs.Stdout))
			})
		}
	}
}

func TestRecordsAreThoseOfKubernetes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, 0, "one\ntwo")
	data, err := os.ReadFile(filepath.Join(dir, "0000000001.log"))
	require.NoError(t, err)
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stdout F one\n`+
		`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stdout P two\n$`, string(data))
}

func TestStreamsStayApart(t *testing.T) {
	dir := t.TempDir()
	w, err := logs.OpenWriter(dir, 0)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for _, name := range []string{logs.Stdout, logs.Stderr} {
		s := w.Stream(name)
		wg.Go(func() {
			for i := range 1000 {
				fmt.Fprintf(s, "%s %d\n", name, i)
			}
		})
	}
	wg.Wait()
	require.NoError(t, w.Close())
	for _, name := range []string{logs.Stdout, logs.Stderr} {
		lines := read(t, dir, logs.ReadOptions{Stream: name})
		require.Len(t, lines, 1000)
		for i, l := range lines {
			require.Equal(t, fmt.Sprintf("%s %d", name, i), string(l.Text))
		}
	}
}

func TestRotationKeepsTheNewestWithinTheLimit(t *testing.T) {
	dir := t.TempDir()
	const limit = logs.MinLimit
	w, err := logs.OpenWriter(dir, limit)
	require.NoError(t, err)
	out := w.Stream(logs.Stdout)
	for i := range 30_000 {
		fmt.Fprintf(out, "line %d\n", i)
		if i%1000 == 0 {
			size, err := logs.Size(dir)
			require.NoError(t, err)
			require.LessOrEqual(t, size, int64(limit))
		}
	}
	require.NoError(t, w.Close())
	size, err := logs.Size(dir)
	require.NoError(t, err)
	require.LessOrEqual(t, size, int64(limit))
	require.Greater(t, size, int64(limit)*3/4)

	lines := read(t, dir, logs.ReadOptions{})
	for i, l := range lines {
		require.Equal(t, fmt.Sprintf("line %d", 30_000-len(lines)+i), string(l.Text))
	}
	last, err := logs.Tail(dir, 3000)
	require.NoError(t, err)
	require.Len(t, last, 3000)
	require.Equal(t, "line 27000", string(last[0].Text))
}

func TestAppendAfterRestart(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, 0, "before\n")
	name := filepath.Join(dir, "0000000001.log")
	file, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	for _, torn := range []string{"2026-01-02T15:04:05.000000000Z stdout F cut o", "\n2026-01-02T15", "\x00\x00\x00"} {
		_, err = file.WriteString(torn)
		require.NoError(t, err)
		// A torn end is no record yet: nobody is shown half of one.
		require.NotContains(t, text(read(t, dir, logs.ReadOptions{}), logs.Stdout), torn)
	}
	require.NoError(t, file.Close())
	write(t, dir, 0, "after\n")
	require.Equal(t, "before\ncut o\nafter\n", text(read(t, dir, logs.ReadOptions{}), logs.Stdout))
}

func TestOnlyOneWriter(t *testing.T) {
	dir := t.TempDir()
	w, err := logs.OpenWriter(dir, 0)
	require.NoError(t, err)
	_, err = logs.OpenWriter(dir, 0)
	require.ErrorContains(t, err, "another writer")
	require.NoError(t, w.Close())
	write(t, dir, 0, "x\n")
}

func TestTail(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("z", 3*logs.MaxText)
	write(t, dir, 0, "1\n2\n"+long+"\n4\nunfinished")
	for n, want := range map[int]string{
		1: "unfinished", 2: "4\nunfinished", 3: long + "\n4\nunfinished", 4: "2\n" + long + "\n4\nunfinished",
		99: "1\n2\n" + long + "\n4\nunfinished",
	} {
		lines, err := logs.Tail(dir, n)
		require.NoError(t, err)
		require.Equal(t, want, text(lines, logs.Stdout), n)
	}
	none, err := logs.Tail(filepath.Join(dir, "absent"), 5)
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestReadAfterACursorAndSince(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, 0, "1\n2\n3\n")
	all := read(t, dir, logs.ReadOptions{})
	cursor, err := logs.ParseCursor(all[1].Cursor.String())
	require.NoError(t, err)
	require.Equal(t, "3\n", text(read(t, dir, logs.ReadOptions{After: cursor}), logs.Stdout))
	require.Empty(t, read(t, dir, logs.ReadOptions{Since: all[2].Time.Add(time.Nanosecond)}))
	require.Len(t, read(t, dir, logs.ReadOptions{Since: all[0].Time}), 3)
	for _, bad := range []string{"", "1", "a:b", "1:-1", "-1:0"} {
		_, err := logs.ParseCursor(bad)
		require.Error(t, err, bad)
	}
}

// follower collects what Read passes on while a test goes on writing.
type follower struct {
	lines chan logs.Line
	err   chan error
}

func follow(t *testing.T, dir string, opts logs.ReadOptions) follower {
	f := follower{lines: make(chan logs.Line, 100_000), err: make(chan error, 1)}
	opts.Follow = true
	go func() {
		f.err <- logs.Read(t.Context(), dir, opts, func(l logs.Line) error {
			l.Text = bytes.Clone(l.Text)
			f.lines <- l
			return nil
		})
		close(f.lines)
	}()
	return f
}

func TestFollow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	done := make(chan struct{})
	f := follow(t, dir, logs.ReadOptions{Done: done})
	w, err := logs.OpenWriter(dir, logs.MinLimit)
	require.NoError(t, err)
	out := w.Stream(logs.Stdout)
	_, err = out.Write([]byte("first\npassword: "))
	require.NoError(t, err)
	require.Equal(t, "first", string((<-f.lines).Text))
	prompt := <-f.lines
	require.Equal(t, "password: ", string(prompt.Text))
	require.True(t, prompt.Partial, "a prompt is shown although its line has no end")
	_, err = out.Write([]byte("secret\n"))
	require.NoError(t, err)
	require.Equal(t, "secret", string((<-f.lines).Text))

	// The directory moves when a run has ended; a follower goes with it.
	moved := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, os.Rename(dir, moved))
	_, err = out.Write([]byte("moved\n"))
	require.NoError(t, err)
	require.Equal(t, "moved", string((<-f.lines).Text))

	_, err = out.Write([]byte("the last words"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	close(done)
	require.NoError(t, <-f.err)
	require.Equal(t, "the last words", string((<-f.lines).Text))
}

func TestFollowAcrossRotation(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	w, err := logs.OpenWriter(dir, 2<<20)
	require.NoError(t, err)
	f := follow(t, dir, logs.ReadOptions{Done: done})
	out := w.Stream(logs.Stdout)
	const n = 40_000
	for i := range n {
		fmt.Fprintf(out, "line %d\n", i)
	}
	require.NoError(t, w.Close())
	close(done)
	require.NoError(t, <-f.err)
	next := 0
	for l := range f.lines {
		if l.Stream == logs.Careen {
			require.Contains(t, string(l.Text), "removed by rotation")
			next = -1
			continue
		}
		if next >= 0 {
			require.Equal(t, fmt.Sprintf("line %d", next), string(l.Text))
		} else {
			_, err := fmt.Sscanf(string(l.Text), "line %d", &next)
			require.NoError(t, err)
		}
		next++
	}
	require.Equal(t, n, next, "the newest line is always kept")
}

func TestAnOvertakenReaderIsTold(t *testing.T) {
	dir := t.TempDir()
	w, err := logs.OpenWriter(dir, logs.MinLimit)
	require.NoError(t, err)
	out := w.Stream(logs.Stdout)
	fmt.Fprintln(out, "start")
	var seen []string
	step := errors.New("enough")
	err = logs.Read(t.Context(), dir, logs.ReadOptions{Follow: true}, func(l logs.Line) error {
		seen = append(seen, l.Stream+" "+string(l.Text[:min(5, len(l.Text))]))
		if len(seen) == 1 {
			for i := range 20_000 { // the reader stalls, the container does not
				fmt.Fprintf(out, "flood %d\n", i)
			}
		}
		if len(l.Stream) == len(logs.Careen) && strings.Contains(string(l.Text), "missing") {
			return step
		}
		return nil
	})
	require.ErrorIs(t, err, step)
	require.NoError(t, w.Close())
}

func TestFollowEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := logs.Read(ctx, t.TempDir(), logs.ReadOptions{Follow: true}, func(logs.Line) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestEndTellsOutputFromSilence(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	end, err := logs.End(dir)
	require.NoError(t, err)
	require.Zero(t, end)
	write(t, dir, 0, "x\n")
	one, err := logs.End(dir)
	require.NoError(t, err)
	require.NotEqual(t, end, one)
	write(t, dir, 0, "y\n")
	two, err := logs.End(dir)
	require.NoError(t, err)
	require.NotEqual(t, one, two)
}

// TestAFloodStaysInBounds is the million lines a second: they have to go
// through without the writer's memory growing.
func TestAFloodStaysInBounds(t *testing.T) {
	dir := t.TempDir()
	w, err := logs.OpenWriter(dir, 0)
	require.NoError(t, err)
	out := w.Stream(logs.Stdout)
	chunk := bytes.Repeat([]byte("y\n"), 32<<10)
	allocs := testing.AllocsPerRun(20, func() { _, _ = out.Write(chunk) })
	require.Less(t, allocs, 100.0, "allocations for 32,768 lines")
	require.NoError(t, w.Close())
}

func BenchmarkWriteShortLines(b *testing.B) {
	w, err := logs.OpenWriter(b.TempDir(), 0)
	require.NoError(b, err)
	out := w.Stream(logs.Stdout)
	chunk := bytes.Repeat([]byte("y\n"), 2<<10)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		_, _ = out.Write(chunk)
	}
	b.ReportMetric(float64(b.N)*2048/b.Elapsed().Seconds(), "lines/s")
	require.NoError(b, w.Close())
}
