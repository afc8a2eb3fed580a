package inflate_test

import (
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/runtime/image/unpack/inflate"
)

// pieces is a source that returns its bytes in pieces of one size.
type pieces struct {
	b    []byte
	size int
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.b) == 0 {
		return nil, io.EOF
	}
	return p.b[:min(p.size, len(p.b))], nil
}

func (p *pieces) Advance(n int) { p.b = p.b[n:] }

func compress(t testing.TB, level int, parts ...[]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, part := range parts {
		w, err := stdgzip.NewWriterLevel(&buf, level)
		require.NoError(t, err)
		_, err = w.Write(part)
		require.NoError(t, err)
		require.NoError(t, w.Close())
	}
	return buf.Bytes()
}

// samples are contents that make encoders use every feature of the format.
func samples() map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	skewed := make([]byte, 400_000)
	for i := range skewed {
		skewed[i] = byte(min(rng.IntN(256), rng.IntN(256), rng.IntN(256), rng.IntN(256)))
	}
	var words bytes.Buffer
	for words.Len() < 500_000 {
		words.WriteString([]string{"layer ", "tar ", "overlay ", "whiteout\n", "digest "}[rng.IntN(5)])
	}
	// Matches at every distance, up to the farthest.
	far := append(append([]byte(nil), noise[:32768]...), noise[:32768]...)
	return map[string][]byte{
		"empty": nil, "one": {7}, "zeros": make([]byte, 1_000_000), "noise": noise, "skewed": skewed,
		"words": words.Bytes(), "far": far, "abab": bytes.Repeat([]byte("ab"), 70_000), "abc": bytes.Repeat([]byte("abcdefg"), 50_000),
	}
}

func TestReader(t *testing.T) {
	for name, want := range samples() {
		for _, level := range []int{flate.NoCompression, flate.BestSpeed, flate.DefaultCompression, flate.BestCompression, flate.HuffmanOnly} {
			z := compress(t, level, want)
			for _, size := range []int{1, 7, 15, 16, 17, 100, 4096, 1 << 20} {
				if size < 15 && len(want) > 400_000 {
					continue
				}
				got, err := io.ReadAll(inflate.NewReader(&pieces{b: z, size: size}))
				require.NoError(t, err, "%s level %d pieces of %d", name, level, size)
				require.True(t, bytes.Equal(want, got), "%s level %d pieces of %d", name, level, size)
			}
		}
	}
}

func TestMembersFollowOneAnother(t *testing.T) {
	s := samples()
	z := compress(t, 6, s["words"], nil, s["noise"], []byte("x"))
	got, err := io.ReadAll(inflate.NewReader(&pieces{b: z, size: 1000}))
	require.NoError(t, err)
	require.Equal(t, append(append(append([]byte(nil), s["words"]...), s["noise"]...), 'x'), got)
}

func TestHeaderFields(t *testing.T) {
	var buf bytes.Buffer
	w := stdgzip.NewWriter(&buf)
	w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
	_, _ = w.Write([]byte("body"))
	require.NoError(t, w.Close())
	got, err := io.ReadAll(inflate.NewReader(&pieces{b: buf.Bytes(), size: 3}))
	require.NoError(t, err)
	require.Equal(t, "body", string(got))
}

func TestTruncatedAndDamaged(t *testing.T) {
	want := samples()["words"][:5000]
	z := compress(t, 6, want)
	for n := range z {
		_, err := io.ReadAll(inflate.NewReader(&pieces{b: z[:n], size: 64}))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", n)
	}
	idle := 0
	for n := range z {
		bad := bytes.Clone(z)
		bad[n] ^= 0x10
		got, err := io.ReadAll(inflate.NewReader(&pieces{b: bad, size: 64}))
		if n >= 3 && n < 10 {
			continue // header fields that do not affect the content
		}
		if err == nil {
			// The bits that fill up the last byte of the data mean nothing.
			idle++
			require.Equal(t, want, got, "damaged at %d", n)
			continue
		}
		require.True(t, errors.Is(err, inflate.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF), "damaged at %d: %v", n, err)
	}
	require.LessOrEqual(t, idle, 1)
	_, err := io.ReadAll(inflate.NewReader(&pieces{b: append(bytes.Clone(z), "rest"...), size: 64}))
	require.Error(t, err, "bytes behind the last member")
}

// FuzzReader compares with the standard library: the same bytes, and an error
// where the standard library returns one.
func FuzzReader(f *testing.F) {
	for _, s := range samples() {
		if len(s) > 20_000 {
			s = s[:20_000]
		}
		f.Add(compress(f, 6, s), 64)
		f.Add(compress(f, 1, s), 5)
	}
	f.Fuzz(func(t *testing.T, z []byte, size int) {
		const limit = 1 << 22
		if size < 1 {
			size = 1
		}
		got, err := io.ReadAll(io.LimitReader(inflate.NewReader(&pieces{b: z, size: size}), limit))
		std, stdErr := stdgzip.NewReader(bytes.NewReader(z))
		var want []byte
		if stdErr == nil {
			want, stdErr = io.ReadAll(io.LimitReader(std, limit))
		}
		if len(got) == limit || len(want) == limit {
			return
		}
		if (err == nil) != (stdErr == nil) {
			// The standard library does not verify the checksum of a header's fields
			// in the same way, and nothing depends on it.
			if errors.Is(stdErr, stdgzip.ErrHeader) {
				return
			}
			t.Fatalf("got error %v, standard library %v", err, stdErr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatal("other content than the standard library's")
		}
	})
}

// BenchmarkReader needs INFLATE_FILE, a gzip file, to measure real layers.
func BenchmarkReader(b *testing.B) {
	z := compress(b, 6, samples()["words"], samples()["skewed"])
	if file := os.Getenv("INFLATE_FILE"); file != "" {
		var err error
		z, err = os.ReadFile(file)
		require.NoError(b, err)
	}
	size, err := io.Copy(io.Discard, inflate.NewReader(&pieces{b: z, size: 1 << 17}))
	require.NoError(b, err)
	b.Run("careen", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			_, _ = io.Copy(io.Discard, inflate.NewReader(&pieces{b: z, size: 1 << 17}))
		}
	})
	b.Run("klauspost", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			r, err := gzip.NewReader(bytes.NewReader(z))
			require.NoError(b, err)
			_, _ = io.Copy(io.Discard, r)
		}
	})
}
