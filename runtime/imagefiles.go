package runtime

import (
	"fmt"
	"io/fs"
	"os"

	securejoin "github.com/cyphar/filepath-securejoin"

	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/rootfs/file"
)

// imageFiles reads a mounted image. No process of the container runs yet, so a
// path that was resolved stays what it is.
type imageFiles struct{ root string }

// ReadFile returns a file's content, following links inside the image only.
func (f imageFiles) ReadFile(path string, limit int64) ([]byte, error) {
	full, err := securejoin.SecureJoin(f.root, path)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(full)
	if err != nil {
		return nil, err
	}
	// A FIFO or a device in an image must not be opened: it may block for ever.
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s in the image is not a regular file: %w", path, fs.ErrInvalid)
	}
	data, err := file.ReadLimited(full, limit)
	if err != nil {
		return nil, fmt.Errorf("%s in the image: %w", path, err)
	}
	return data, nil
}

// Resolve follows the links of path inside the image as far as it exists.
func (f imageFiles) Resolve(path string) (string, error) {
	full, err := securejoin.SecureJoin(f.root, path)
	if err != nil {
		return "", err
	}
	if full == f.root {
		return "/", nil
	}
	return full[len(f.root):], nil
}

// Stat follows links inside the image.
func (f imageFiles) Stat(path string) (fs.FileInfo, error) {
	full, err := securejoin.SecureJoin(f.root, path)
	if err != nil {
		return nil, err
	}
	return os.Lstat(full)
}

// ImageFiles reads the files of an image that lies unpacked or mounted in a
// directory, and never leaves it.
func ImageFiles(root string) oci.Files { return imageFiles{root} }
