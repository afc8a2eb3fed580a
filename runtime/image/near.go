package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/peers"
)

// spreads reports whether the pull waits before it fetches layers: from a registry
// only, and once.
func (j *job) spreads() bool {
	return j.p.cfg.Jitter > 0 && !j.spreadOut && (j.req.Transport == "" || j.req.Transport == Docker)
}

// spread waits a random part of the configured time: nodes that were started together
// ask one after another, and the later ones find peers that have the layers.
func (j *job) spread(ctx context.Context) error {
	j.spreadOut = true
	wait := rand.N(j.p.cfg.Jitter) //nolint:gosec // spreads load, guards nothing
	j.progress.waits(fmt.Sprintf("its turn, for %s of at most %s: not all nodes are to ask the registry at once",
		wait.Round(100*time.Millisecond), j.p.cfg.Jitter))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	j.progress.waits("")
	return nil
}

// near is an image in a registry whose layers other nodes may have.
type near struct {
	*registry
	j *job
	// doubtful counts the layers of which a peer gave bytes that are not verified.
	doubtful atomic.Int64
}

// unpackNear is unpackAll with layers from other nodes as far as they have any. What a
// peer makes fail is fetched once more, then from the registry alone: a peer must not
// be able to keep an image from a node, by a wrong byte or by a bomb.
func (p *Puller) unpackNear(ctx context.Context, j *job, src source, layers []layer, lease leases.Lease) (bool, error) {
	reg, ok := src.(*registry)
	if !ok || p.cfg.Peers == nil {
		return p.unpackAll(ctx, j, src, layers, lease)
	}
	defer p.cfg.Peers.CloseIdle()
	n := &near{registry: reg, j: j}
	fetched, err := p.unpackAll(ctx, j, n, layers, lease)
	if err == nil || ctx.Err() != nil || n.doubtful.Load() == 0 {
		return fetched, err
	}
	switch fault.CodeOf(err) {
	case fault.Digest, fault.BadImage, fault.Space, fault.Memory:
	default:
		return fetched, err
	}
	log.G(ctx).WithError(err).Warn("what peers gave does not make the image; it is fetched from the registry")
	return p.unpackAll(ctx, j, reg, layers, lease)
}

// blob opens a layer at the first peer that has it, else at the registry.
func (n *near) blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r := &nearReader{n: n, ctx: ctx, desc: desc, ask: n.p.cfg.Peers.Ask(ctx)}
	if r.connect() {
		return r, nil
	}
	return n.registry.blob(ctx, desc)
}

// nearReader reads a layer from peers, and where none has it, or has the rest of it,
// from the registry. Nothing is verified here.
type nearReader struct {
	n    *near
	ctx  context.Context //nolint:containedctx // the reader is the call
	desc ocispec.Descriptor
	ask  *peers.Ask
	at   int64

	peer  *peers.Peer // that is being read from, nil for the registry
	began int64       // byte at which it began
	spent time.Duration
	guard *stallGuard
	body  io.ReadCloser
	gave  []*peers.Peer
}

// connect finds a peer for what is left of the layer.
func (r *nearReader) connect() bool {
	for r.ctx.Err() == nil {
		peer := r.ask.Next()
		if peer == nil {
			return false
		}
		ctx, guard := newStallGuard(r.ctx, r.patience())
		resp, err := peer.Get(ctx, r.n.endpoints[len(r.n.endpoints)-1].repository, r.desc.Digest, r.at)
		if err != nil {
			if guard.stalled() {
				peer.Failed()
			}
			guard.close()
			continue
		}
		if !r.fits(resp) {
			log.G(r.ctx).WithField("peer", peer).Info("a peer has a layer of another size")
			peer.Failed()
			_ = resp.Body.Close()
			guard.close()
			continue
		}
		r.peer, r.body, r.guard, r.began, r.spent = peer, resp.Body, guard, r.at, 0
		log.G(r.ctx).WithField("peer", peer).WithField("layer", r.desc.Digest).Debug("layer from a peer")
		return true
	}
	return false
}

// fits reports whether an answer is what is left of the layer.
func (r *nearReader) fits(resp *http.Response) bool {
	if r.at == 0 {
		return resp.StatusCode == http.StatusOK && resp.ContentLength == r.desc.Size
	}
	want := fmt.Sprintf("bytes %d-%d/%d", r.at, r.desc.Size-1, r.desc.Size)
	return resp.StatusCode == http.StatusPartialContent && resp.Header.Get("Content-Range") == want
}

func (r *nearReader) patience() time.Duration { return min(peers.Patience, r.n.p.cfg.Limits.Stall) }

// Read returns io.EOF only after the descriptor's size.
func (r *nearReader) Read(p []byte) (int, error) {
	for {
		if r.at >= r.desc.Size {
			return 0, io.EOF
		}
		if r.peer == nil {
			n, err := r.body.Read(p)
			r.at += int64(n)
			return n, err
		}
		n, err := r.readPeer(p[:min(int64(len(p)), r.desc.Size-r.at)])
		if n > 0 || r.ctx.Err() != nil {
			return n, context.Cause(r.ctx)
		}
		if err == nil {
			continue
		}
		// Nothing more comes from this one.
		r.peer.Failed()
		log.G(r.ctx).WithError(err).WithField("peer", r.peer).Info("a peer ended in the middle of a layer")
		r.disconnect()
		r.ask.Renew()
		if r.connect() {
			continue
		}
		if r.body, err = r.n.blobAt(r.ctx, r.desc, r.at); err != nil {
			return 0, err
		}
	}
}

// readPeer gives up on a peer that sends nothing, or less than is worth waiting for.
func (r *nearReader) readPeer(p []byte) (int, error) {
	earned := time.Duration(float64(r.at-r.began) / peers.MinRate * float64(time.Second))
	left := r.patience() + earned - r.spent
	if left <= 0 {
		return 0, errStalled
	}
	r.guard.limit = min(left, r.patience())
	start := time.Now()
	n, err := r.guard.read(r.body, p)
	r.spent += time.Since(start)
	if n > 0 {
		if len(r.gave) == 0 {
			r.n.doubtful.Add(1)
		}
		if len(r.gave) == 0 || r.gave[len(r.gave)-1] != r.peer {
			r.gave = append(r.gave, r.peer)
		}
		r.at += int64(n)
		r.n.j.progress.update(false, func(p *api.PullProgress) { p.FromPeers += int64(n) })
	} else if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *nearReader) disconnect() {
	if r.body != nil {
		_ = r.body.Close()
		r.body = nil
	}
	if r.guard != nil {
		r.guard.close()
		r.guard = nil
	}
	r.peer = nil
}

// Close drops the connection.
func (r *nearReader) Close() error {
	r.disconnect()
	return nil
}

// doubted reports whether any of the layer came from a peer.
func doubted(blob io.Reader) bool {
	r, ok := blob.(*nearReader)
	return ok && len(r.gave) > 0
}

// judge takes what verifying a layer brought up. A layer that is right takes its peers
// out of doubt; one with a wrong digest has them not asked again.
// When ctx has ended, err may be another layer's.
func judge(ctx context.Context, blob io.Reader, err error) {
	r, ok := blob.(*nearReader)
	if !ok || len(r.gave) == 0 || err != nil && ctx.Err() != nil {
		return
	}
	if err == nil {
		r.n.doubtful.Add(-1)
	} else if fault.CodeOf(err) == fault.Digest {
		for _, peer := range r.gave {
			if peer.Lied() {
				r.n.j.progress.warn(fmt.Sprintf("peer %s gave a layer that is not what its digest says; it is not asked again", peer))
			}
		}
	}
}
