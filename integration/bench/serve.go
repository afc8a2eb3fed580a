package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// serve is a registry that costs as little as a registry can, so that what is
// measured is the client: manifests and blobs of OCI layouts, read only, with
// sendfile and ranges. A latency and a rate make it a slow one.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	root := flags.String("root", "", "directory of OCI layouts, one per repository")
	latency := flags.Duration("latency", 0, "wait before each answer")
	rate := flags.Int64("rate", 0, "bytes per second and connection, 0 is unlimited")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(*latency)
			if *rate > 0 {
				w = &slowWriter{ResponseWriter: w, rate: *rate}
			}
			answer(w, r, *root)
		})}
	// The parent closes our standard input when it ends, however it ends.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Shutdown(context.Background())
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func answer(w http.ResponseWriter, r *http.Request, root string) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) != 4 || parts[0] != "v2" {
		w.WriteHeader(http.StatusOK)
		return
	}
	dir := filepath.Join(root, filepath.Base(parts[1]))
	object := parts[3]
	if parts[2] == "manifests" {
		if !strings.HasPrefix(object, "sha256:") {
			desc, err := top(dir)
			if err != nil {
				http.NotFound(w, r)
				return
			}
			object = desc.Digest.String()
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", object)
	} else {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	d, err := digest.Parse(object)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	http.ServeFile(w, r, filepath.Join(dir, "blobs/sha256", d.Encoded()))
}

type slowWriter struct {
	http.ResponseWriter
	rate int64
}

func (s *slowWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		part := b[:min(len(b), 64<<10)]
		var m int
		m, err = s.ResponseWriter.Write(part)
		time.Sleep(time.Duration(int64(m) * int64(time.Second) / s.rate))
		n, b = n+m, b[m:]
	}
	return n, err
}
