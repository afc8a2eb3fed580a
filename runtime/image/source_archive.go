package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/runtime/image/failure"
	"github.com/careen-project/careen/runtime/image/unpack"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxArchiveEntries bounds the table of an archive's files. An image has a few
// per layer.
const maxArchiveEntries = 10_000

// archive is a tar file whose members are read in place, in any order, without a copy.
type archive struct {
	f       *os.File
	members map[string]member
}

type member struct {
	at, size int64
	link     string // a symbolic link's target, as old versions of docker save wrote
}

func openArchive(ctx context.Context, name string) (*archive, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &archive{f: f, members: map[string]member{}}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil {
		err = a.index(ctx)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return a, nil
}

// index reads the headers. The file can seek, so contents are skipped, not read.
func (a *archive) index(ctx context.Context) error {
	var magic [2]byte
	if _, err := a.f.ReadAt(magic[:], 0); err == nil && bytes.Equal(magic[:], unpack.GzipMagic) {
		return errors.New("it is compressed; decompress it first")
	}
	tr := tar.NewReader(a.f)
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is not a tar archive: %w", err)
		}
		if n >= maxArchiveEntries {
			return fmt.Errorf("it has more than %d entries", maxArchiveEntries)
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			// The bytes of a sparse member differ from its content.
			if h.PAXRecords["GNU.sparse.major"] != "" {
				return errors.New("it has sparse members")
			}
			at, err := a.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			a.members[name] = member{at: at, size: h.Size}
		case tar.TypeSymlink, tar.TypeLink:
			target := h.Linkname
			if h.Typeflag == tar.TypeSymlink {
				target = path.Join(path.Dir(name), h.Linkname)
			}
			a.members[name] = member{link: path.Clean("/" + target)[1:]}
		}
	}
}

type section struct{ *io.SectionReader }

func (section) Close() error { return nil }

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	m, ok := a.members[name]
	for hops := 0; ok && m.link != ""; hops++ {
		if hops > 3 {
			return nil, 0, fmt.Errorf("%s: too many links", fault.OneLine(name, 100))
		}
		m, ok = a.members[m.link]
	}
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: fault.OneLine(name, 100), Err: fs.ErrNotExist}
	}
	return section{io.NewSectionReader(a.f, m.at, m.size)}, m.size, nil
}

func (a *archive) Close() error { return a.f.Close() }

// dockerArchive is an image as "docker save" and "podman save" write it: a
// configuration, layers as tar files, and manifest.json, which names them. It
// has no manifest; careen makes one as podman does, with the layers' own digests.
type dockerArchive struct {
	fileSource
	p     *Puller
	files *archive
	doc   *document
	names map[digest.Digest]string
}

type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func newDockerArchive(p *Puller, req *Request, a *archive) (*dockerArchive, error) {
	body, err := readPart(a, "manifest.json", p.cfg.Limits.MaxManifest)
	if err != nil {
		return nil, err
	}
	var items []dockerItem
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, failure.BadImage("manifest.json", "%s", fault.OneLine(err.Error(), 200))
	}
	item, err := pickItem(items, req)
	if err != nil {
		return nil, err
	}
	d := &dockerArchive{fileSource: fileSource{req.Path}, p: p, files: a, names: map[digest.Digest]string{}}
	config, err := readPart(a, path.Clean("/" + item.Config)[1:], p.cfg.Limits.MaxConfig)
	if err != nil {
		return nil, err
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: images.MediaTypeDockerSchema2Manifest,
		Config: ocispec.Descriptor{MediaType: images.MediaTypeDockerSchema2Config, Digest: digest.FromBytes(config), Size: int64(len(config))}}
	d.names[manifest.Config.Digest] = path.Clean("/" + item.Config)[1:]
	if len(item.Layers) > p.cfg.Limits.MaxLayers {
		return nil, failure.BadImage("manifest.json", "it has %d layers, more than the limit of %d", len(item.Layers), p.cfg.Limits.MaxLayers)
	}
	parsed, err := parseConfig(config, &ocispec.Manifest{Layers: make([]ocispec.Descriptor, len(item.Layers))})
	if err != nil {
		return nil, err
	}
	for i, name := range item.Layers {
		desc, err := d.layer(path.Clean("/" + name)[1:], parsed.RootFS.DiffIDs[i])
		if err != nil {
			return nil, err
		}
		manifest.Layers = append(manifest.Layers, desc)
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	d.doc, err = newDocument(raw, manifest.MediaType, "")
	return d, err
}

// layer describes a layer. The digest of an uncompressed layer is its diff-ID; a compressed
// layer, which some tools write, has to be read for its digest.
func (d *dockerArchive) layer(name string, diffID digest.Digest) (ocispec.Descriptor, error) {
	r, size, err := d.files.open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer r.Close()
	desc := ocispec.Descriptor{MediaType: images.MediaTypeDockerSchema2Layer, Digest: diffID, Size: size}
	var head [4]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		return desc, err
	}
	if bytes.HasPrefix(head[:n], unpack.GzipMagic) || bytes.HasPrefix(head[:n], unpack.ZstdMagic) {
		hash := digest.SHA256.Digester()
		if _, err := io.Copy(hash.Hash(), io.MultiReader(bytes.NewReader(head[:n]), r)); err != nil {
			return desc, err
		}
		desc.MediaType, desc.Digest = images.MediaTypeDockerSchema2LayerGzip, hash.Digest()
	}
	d.names[desc.Digest] = name
	return desc, nil
}

func pickItem(items []dockerItem, req *Request) (dockerItem, error) {
	var names []string
	for _, item := range items {
		for _, tag := range item.RepoTags {
			if req.Tag != "" && (tag == req.Tag || strings.HasSuffix(tag, "/"+req.Tag) || tag == "docker.io/library/"+req.Tag ||
				strings.HasSuffix(tag, ":"+req.Tag)) {
				return item, nil
			}
			if len(names) < 10 {
				names = append(names, fault.OneLine(tag, 80))
			}
		}
	}
	if len(items) == 1 && req.Tag == "" {
		return items[0], nil
	}
	slices.Sort(names)
	return dockerItem{}, &fault.Error{Code: fault.ImageNotFound, Op: "find image", Subject: req.Original,
		Reason: fmt.Sprintf("the archive has %d images: %s", len(items), strings.Join(names, ", ")),
		Remedy: "Name one of them after the path: PATH:NAME:TAG"}
}

func (d *dockerArchive) root(context.Context) (*document, error) { return d.doc, nil }

func (d *dockerArchive) manifest(context.Context, ocispec.Descriptor) (*document, error) {
	return nil, errors.ErrUnsupported // there are no indexes
}

func (d *dockerArchive) blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r, _, err := d.files.open(d.names[desc.Digest])
	return r, err
}

func (d *dockerArchive) probe(_ context.Context, desc ocispec.Descriptor, at int64, b []byte) error {
	return probePart(d.files, d.names[desc.Digest], at, b)
}

func (d *dockerArchive) Close() error { return d.files.Close() }
