package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	kgzip "github.com/klauspost/compress/gzip"

	"github.com/careen-project/careen/runtime/image/unpack"
)

// bytesSource is a source of one blob, of which the first and the last bytes are known.
type bytesSource struct {
	source
	head, tail []byte
}

func (s bytesSource) probe(_ context.Context, _ ocispec.Descriptor, at int64, b []byte) error {
	if at == 0 {
		copy(b, s.head)
	} else {
		copy(b, s.tail[len(s.tail)-len(b):])
	}
	return nil
}

func estimate(head, tail []byte, size int64) int64 {
	return unpackedSize(context.Background(), bytesSource{head: head, tail: tail}, ocispec.Descriptor{Size: size})
}

// compressor makes one member or frame.
type compressor struct {
	name  string
	write func(t *testing.T, data []byte) []byte
}

func written(t *testing.T, data []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	var out bytes.Buffer
	w, err := open(&out)
	require.NoError(t, err)
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

// compressors are the libraries and programs that write layers, with their levels.
func compressors() []compressor {
	var all []compressor
	for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
		all = append(all, compressor{"compress/gzip", func(t *testing.T, data []byte) []byte {
			return written(t, data, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, level) })
		}})
	}
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		all = append(all, compressor{"klauspost gzip", func(t *testing.T, data []byte) []byte {
			return written(t, data, func(w io.Writer) (io.WriteCloser, error) { return kgzip.NewWriterLevel(w, level) })
		}})
	}
	for level := zstd.SpeedFastest; level <= zstd.SpeedBestCompression; level++ {
		all = append(all, compressor{"zstd stream", func(t *testing.T, data []byte) []byte {
			return written(t, data, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w, zstd.WithEncoderLevel(level)) })
		}}, compressor{"zstd with its size", func(t *testing.T, data []byte) []byte {
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level))
			require.NoError(t, err)
			defer enc.Close()
			return enc.EncodeAll(data, nil)
		}})
	}
	for _, args := range [][]string{{"gzip", "-1"}, {"gzip", "-9"}, {"pigz", "-1"}, {"pigz", "-0"}, {"bgzip"}, {"zstd", "-3"}} {
		if _, err := exec.LookPath(args[0]); err != nil {
			continue
		}
		all = append(all, compressor{args[0], func(t *testing.T, data []byte) []byte {
			cmd := exec.Command(args[0], append(args[1:], "-c")...)
			cmd.Stdin = bytes.NewReader(data)
			out, err := cmd.Output()
			require.NoError(t, err)
			return out
		}})
	}
	return all
}

// drawn is data that does not compress, data that compresses well, or both.
func drawn(rng *rand.Rand, size int) []byte {
	data := make([]byte, size)
	for at := 0; at < size; {
		n := min(size-at, 1+rng.IntN(1<<16))
		if rng.IntN(3) > 0 {
			for i := range n {
				data[at+i] = byte(rng.Uint32())
			}
		} else {
			for i := range n {
				data[at+i] = "the quick brown fox\n"[i%20]
			}
		}
		at += n
	}
	return data
}

// TestTheEstimateIsNeverMoreThanTheLayer draws layers of all compressors and levels, of
// one member and of several. An estimate above the unpacked size would refuse an image
// that fits. Where the layer says its size, the estimate is that size.
func TestTheEstimateIsNeverMoreThanTheLayer(t *testing.T) {
	rng := rand.New(rand.NewPCG(14, 1))
	for _, c := range compressors() {
		for range 8 {
			var blob []byte
			size, members := int64(0), 1+rng.IntN(4)
			for range members {
				data := drawn(rng, rng.IntN(1<<19))
				blob = append(blob, c.write(t, data)...)
				size += int64(len(data))
			}
			got := estimate(blob, blob, int64(len(blob)))
			require.LessOrEqual(t, got, size, "%s, %d members, %d bytes stored", c.name, members, len(blob))
			require.GreaterOrEqual(t, got, leastUnpacked(int64(len(blob))), c.name)
			counts := size <= int64(len(blob))*maxExpansion
			if members == 1 && counts && c.name != "zstd stream" && c.name != "zstd" && c.name != "bgzip" && len(blob) > 20 {
				require.Equal(t, max(size, leastUnpacked(int64(len(blob)))), got, c.name)
			}
		}
	}
}

// TestTheEstimateAroundFourGiB draws layers with sizes around multiples of 2^32, where the
// length of a gzip stream starts over. Only their size and their first and last bytes are
// made. 20 MB of random data grow by 3 to 6 KB.
func TestTheEstimateAroundFourGiB(t *testing.T) {
	rng := rand.New(rand.NewPCG(14, 2))
	for range 100_000 {
		last := rng.Int64N(9) << 30
		if rng.IntN(2) == 0 {
			last += rng.Int64N(1<<21) - 1<<20
		} else {
			last = rng.Int64N(9 << 30)
		}
		last = max(0, last)
		size := last // the layer: all members together
		if rng.IntN(2) == 0 {
			size += rng.Int64N(9 << 30)
		}
		// From data that only grows to data that shrinks to a tenth.
		stored := size + size/16384*5 + 18
		if rng.IntN(2) == 0 {
			stored -= rng.Int64N(size - size/10 + 1)
		}
		tail := binary.LittleEndian.AppendUint32(nil, uint32(last)) // modulo 2^32, as RFC 1952 has it
		got := estimate(unpack.GzipMagic, tail, stored)
		require.LessOrEqual(t, got, size, "last member %d, stored %d", last, stored)
		if size == last && size < 1<<32 && size <= stored*maxExpansion {
			require.Equal(t, max(size, leastUnpacked(stored)), got)
		}
	}
}
