package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/verify"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// openFile opens an image in a file or directory of the node. The error is
// [fault.ImageNotFound], [fault.BadImage], or the cause of ctx.
func (p *Puller) openFile(ctx context.Context, req *Request) (source, error) {
	src, err := p.openPath(ctx, req)
	if err == nil {
		return src, nil
	}
	var known *fault.Error
	if errors.As(err, &known) {
		return nil, err
	}
	f := &fault.Error{Code: fault.BadImage, Op: "open image", Subject: req.Original, Err: err,
		Remedy: "Check the path, and that it was written as " + string(req.Transport)}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Code = fault.ImageNotFound
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, f
}

func (p *Puller) openPath(ctx context.Context, req *Request) (source, error) {
	if req.Transport == OCI {
		root, err := os.OpenRoot(req.Path)
		if err != nil {
			return nil, err
		}
		return &layout{fileSource: fileSource{req.Path}, p: p, req: req, files: dirFiles{root}}, nil
	}
	archive, err := openArchive(ctx, req.Path)
	if err != nil {
		return nil, err
	}
	if req.Transport == OCIArchive {
		return &layout{fileSource: fileSource{req.Path}, p: p, req: req, files: archive}, nil
	}
	src, err := newDockerArchive(p, req, archive)
	if err != nil {
		_ = archive.Close()
		return nil, err
	}
	return src, nil
}

// files are the named files of a layout: a directory, or a tar of one. Names use slashes,
// and no name leads out of the layout.
type files interface {
	open(name string) (io.ReadCloser, int64, error)
	Close() error
}

type dirFiles struct{ root *os.Root }

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func (d dirFiles) Close() error { return d.root.Close() }

func readPart(f files, name string, limit int64) ([]byte, error) {
	r, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > limit {
		return nil, failure.BadImage(fault.OneLine(name, 100), "it has %d bytes, more than the limit of %d", size, limit)
	}
	return io.ReadAll(io.LimitReader(r, limit))
}

// fileSource has the parts of a source that do not depend on the format of the file.
type fileSource struct{ path string }

// digest is unknown: reading the file is as fast as asking for the digest.
func (fileSource) digest(context.Context) (digest.Digest, error) { return "", nil }

// signatures are none: a file has no place for them that policy.json knows.
func (fileSource) signatures(context.Context, []byte) ([]verify.Signature, error) { return nil, nil }

func (f fileSource) from(_ io.Reader, err error) error { return failure.From("file", f.path, err) }

// layout is an image in an OCI image layout.
type layout struct {
	fileSource
	p     *Puller
	req   *Request
	files files
}

func (l *layout) Close() error { return l.files.Close() }

func blobName(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// root finds the image in the layout's index: by tag or digest, or the only one.
func (l *layout) root(ctx context.Context) (*document, error) {
	body, err := readPart(l.files, "index.json", l.p.cfg.Limits.MaxManifest)
	if err != nil {
		return nil, l.absent(err, "index.json")
	}
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, failure.BadImage("index.json", "%s", fault.OneLine(err.Error(), 200))
	}
	var found []ocispec.Descriptor
	var names []string
	for _, m := range index.Manifests {
		if m.MediaType != "" && !images.IsManifestType(m.MediaType) && !images.IsIndexType(m.MediaType) {
			continue
		}
		name := m.Annotations[ocispec.AnnotationRefName]
		if len(names) < 10 {
			names = append(names, fault.OneLine(name, 60))
		}
		if l.matches(name, m.Digest) {
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 1:
	case len(found) == 0:
		return nil, &fault.Error{Code: fault.ImageNotFound, Op: "find image", Subject: l.req.Original,
			Reason: "the layout has no such image, only: " + strings.Join(names, ", "), Remedy: "Name one of them after the path: PATH:TAG"}
	case l.req.Tag == "" && l.req.Digest == "" && samePlatforms(found):
		return nil, &fault.Error{Code: fault.BadReference, Op: "find image", Subject: l.req.Original,
			Reason: "the layout has several images: " + strings.Join(names, ", "), Remedy: "Name one of them after the path: PATH:TAG"}
	default:
		// Several entries that differ in their platform are an index.
		body, err := json.Marshal(ocispec.Index{Versioned: index.Versioned, Manifests: found})
		if err != nil {
			return nil, err
		}
		return newDocument(body, ocispec.MediaTypeImageIndex, "")
	}
	if err := checkDescriptor(found[0], "manifest", l.p.cfg.Limits.MaxManifest); err != nil {
		return nil, err
	}
	return l.manifest(ctx, found[0])
}

// matches compares a name with the request's tag. Tools write the tag alone or as a whole
// reference.
func (l *layout) matches(name string, d digest.Digest) bool {
	switch {
	case l.req.Digest != "":
		return d.String() == l.req.Digest
	case l.req.Tag != "":
		return name == l.req.Tag || strings.HasSuffix(name, ":"+l.req.Tag)
	default:
		return true
	}
}

func samePlatforms(found []ocispec.Descriptor) bool {
	var seen []string
	for _, m := range found {
		if m.Platform == nil {
			return true
		}
		key := m.Platform.OS + "/" + m.Platform.Architecture + "/" + m.Platform.Variant
		if slices.Contains(seen, key) {
			return true
		}
		seen = append(seen, key)
	}
	return false
}

func (l *layout) manifest(_ context.Context, desc ocispec.Descriptor) (*document, error) {
	body, err := readPart(l.files, blobName(desc.Digest), l.p.cfg.Limits.MaxManifest)
	if err != nil {
		return nil, l.absent(err, desc.Digest.String())
	}
	return newDocument(body, desc.MediaType, desc.Digest)
}

func (l *layout) blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r, size, err := l.files.open(blobName(desc.Digest))
	if err != nil {
		return nil, l.absent(err, desc.Digest.String())
	}
	if size != desc.Size {
		_ = r.Close()
		return nil, failure.BadImage("blob "+desc.Digest.String(), "it has %d bytes, not %d", size, desc.Size)
	}
	return r, nil
}

func (l *layout) probe(_ context.Context, desc ocispec.Descriptor, at int64, b []byte) error {
	return probePart(l.files, blobName(desc.Digest), at, b)
}

func probePart(f files, name string, at int64, b []byte) error {
	r, _, err := f.open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	ra, ok := r.(io.ReaderAt)
	if !ok {
		return errors.ErrUnsupported
	}
	_, err = ra.ReadAt(b, at)
	return err
}

func (l *layout) absent(err error, what string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &fault.Error{Code: fault.ImageNotFound, Op: "read image", Subject: l.req.Original, Err: err,
			Reason: what + " is not in it", Remedy: "Check that it was copied whole"}
	}
	return err
}
