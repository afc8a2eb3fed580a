package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/distribution/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"
)

// maxAuthFile bounds a credentials file. Real ones are a few kilobytes.
const maxAuthFile = 4 << 20

// credentials finds the user and secret of a host. The credentials of the request are for
// the image's registry only: they are never sent to a mirror or to the target of a
// redirect, which have their own entries in the files.
type credentials struct {
	sys    *types.SystemContext
	domain string
	key    string // domain and repository: auth.json may be that specific
	user   string
	secret string
	files  []string
}

func (p *Puller) credentials(req *Request, ref reference.Named) (*credentials, error) {
	c := &credentials{sys: p.systemContext(), domain: reference.Domain(ref), key: ref.Name(), files: p.cfg.AuthFiles}
	if req.Creds != "" {
		c.user, c.secret, _ = strings.Cut(req.Creds, ":")
		if c.user == "" {
			return nil, &fault.Error{Code: fault.BadOption, Op: "use", Subject: "--creds", Reason: "the user name is empty",
				Remedy: "Write --creds=USER:PASSWORD"}
		}
	}
	if req.AuthFile != "" {
		// A file that the operator names has to exist.
		if _, err := os.Stat(req.AuthFile); err != nil {
			return nil, &fault.Error{Code: fault.BadOption, Op: "read credentials file", Subject: req.AuthFile, Err: err,
				Remedy: "Check --authfile"}
		}
		c.files = []string{req.AuthFile}
	}
	return c, nil
}

// lookup returns the credentials for host, empty if there are none. A user name
// of "" with a secret is an identity token.
func (c *credentials) lookup(host string) (user, secret string, err error) {
	key := host
	if host == "registry-1.docker.io" || host == "index.docker.io" {
		host, key = "docker.io", "docker.io"
	}
	if host == c.domain {
		if c.user != "" {
			return c.user, c.secret, nil
		}
		key = c.key
	}
	for _, file := range c.files {
		info, err := os.Stat(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxAuthFile {
			return "", "", authFileError(file, fmt.Errorf("not a readable regular file of at most %d bytes", maxAuthFile))
		}
		sys := *c.sys
		if filepath.Base(file) == ".dockercfg" {
			sys.LegacyFormatAuthFilePath = file
		} else {
			sys.AuthFilePath = file
		}
		found, err := config.GetCredentials(&sys, key)
		if err != nil {
			return "", "", authFileError(file, err)
		}
		if found.IdentityToken != "" {
			return "", found.IdentityToken, nil
		}
		if found.Username != "" {
			return found.Username, found.Password, nil
		}
	}
	return "", "", nil
}

func authFileError(file string, err error) error {
	return &fault.Error{Code: fault.BadConfig, Op: "read credentials file", Subject: file, Err: err, Remedy: "Correct the file"}
}
