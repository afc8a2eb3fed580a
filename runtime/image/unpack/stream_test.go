package unpack

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStreamReachesAllReaders sends more than the buffers hold to two readers of
// different pace.
func TestStreamReachesAllReaders(t *testing.T) {
	s := newStream(2)
	const size = chunkSize*chunkCount*3 + 17
	go func() { _ = s.pump(context.Background(), io.LimitReader(zeros{}, size)) }()
	var fast int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.outs[0].each(func(b []byte) { fast += int64(len(b)) })
	}()
	slow, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{s.outs[1]}, make([]byte, 1000))
	require.NoError(t, err)
	<-done
	require.EqualValues(t, size, slow)
	require.EqualValues(t, size, fast)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
