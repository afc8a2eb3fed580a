package oci

import (
	"strings"

	"github.com/careen-project/careen/agent/fault"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// proxyVariables are passed in unless --http-proxy=false.
var proxyVariables = []string{
	"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY",
}

// environment joins the variables; later ones override earlier ones: careen's, the
// image's, --env-merge, the caller's (all with --env-host, otherwise the proxies),
// --env-file and --env. --unsetenv removes variables of the first two only.
func (b *builder) environment() error {
	env := map[string]string{"PATH": defaultPath, "container": "careen"}
	if b.o.TTY {
		env["TERM"] = "xterm"
	}
	for _, entry := range b.image.Env {
		// podman fills in an entry without a value from its own environment; an
		// image has no business in there.
		if name, value, ok := strings.Cut(entry, "="); ok && name != "" {
			env[name] = value
		}
	}
	caller := b.callerEnv()
	if err := b.mergeEnv(env, caller); err != nil {
		return err
	}
	for _, name := range b.o.UnsetEnv {
		delete(env, name)
	}
	if b.o.UnsetEnvAll {
		clear(env)
	}
	for name, value := range caller {
		env[name] = value
	}
	for name, value := range b.o.Env {
		env[name] = value
	}
	if b.systemd && env["container_uuid"] == "" {
		env["container_uuid"] = b.in.ID[:min(32, len(b.in.ID))]
	}
	if _, ok := env["HOSTNAME"]; !ok {
		env["HOSTNAME"] = b.hostname
		if !b.hasNamespace("uts") {
			env["HOSTNAME"] = b.in.Node.Hostname
		}
	}
	b.env = env
	return nil
}

// callerEnv are the caller's variables that the options pass.
func (b *builder) callerEnv() map[string]string {
	env := make(map[string]string)
	switch {
	case b.o.EnvHost:
		for name, value := range b.in.Environ {
			env[name] = value
		}
	case b.o.HTTPProxy:
		for _, name := range proxyVariables {
			if value, ok := b.in.Environ[name]; ok {
				env[name] = value
			}
		}
	}
	return env
}

// mergeEnv applies --env-merge. It expands variables of the image, and those of the caller
// that the image does not have.
func (b *builder) mergeEnv(env, caller map[string]string) error {
	lookup := func(name string) (string, bool) {
		if value, ok := env[name]; ok {
			return value, true
		}
		value, ok := caller[name]
		return value, ok
	}
	for _, entry := range b.o.EnvMerge {
		text, err := expandWord(entry, lookup)
		if err != nil {
			return Errors{asFault(err, "--env-merge", "--env-merge='PATH=/opt/bin:${PATH}'")}
		}
		name, value, _ := strings.Cut(text, "=")
		if _, ok := env[name]; ok {
			env[name] = value
		} else if _, ok := caller[name]; ok {
			env[name] = value
		}
	}
	return nil
}

// envList writes the environment sorted by name.
func envList(env map[string]string) []string {
	var list []string
	for _, name := range sortedNames(env) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// exitFault marks an error with podman's exit code for it.
func exitFault(code fault.Code, exit int, subject, reason, remedy string, err error) *fault.Error {
	return &fault.Error{
		Code: code, Op: "run image", Subject: subject, Err: err, Reason: reason, Remedy: remedy,
		Attrs: map[string]any{exitAttr: exit},
	}
}
