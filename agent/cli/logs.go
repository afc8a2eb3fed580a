package cli

import (
	"context"
	"io"
	"time"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/client"
	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs/file"
)

// Logs prints the output of a run. With timestamps, time and stream come before each line.
// Control characters are escaped on a terminal, unless raw. Errors are those of
// [client.Client.Logs] and of Out.
func (c *Console) Logs(ctx context.Context, agent *client.Client, id string, opts client.LogOptions, timestamps, raw bool) error {
	read := agent.Logs
	if opts.Follow {
		read = agent.FollowLogs
	}
	clean := !raw && IsTerminal(c.Out)
	return read(ctx, id, opts, func(l api.LogLine, text []byte) error {
		line := string(text)
		if clean {
			line = Clean(line)
		}
		if timestamps {
			line = l.Time.Format(time.RFC3339Nano) + " " + l.Stream + " " + line
		}
		if !l.Partial || timestamps {
			line += "\n"
		}
		_, err := io.WriteString(c.Out, line)
		return err
	})
}

// SaveBundle writes the bundle of a run to a file that is complete or does not exist: half
// a bundle misleads. Errors are those of [client.Client.Bundle], and space if the file
// cannot be written.
func SaveBundle(ctx context.Context, agent *client.Client, id, path string) error {
	var unread error
	err := file.ReplaceWith(path, 0o600, file.Whole, func(w io.Writer) error {
		unread = agent.Bundle(ctx, id, w)
		return unread
	})
	if unread != nil {
		return unread
	}
	if err != nil {
		return &fault.Error{Code: fault.Space, Op: "write", Subject: path, Err: err, Remedy: "Check the directory and its free space"}
	}
	return nil
}
