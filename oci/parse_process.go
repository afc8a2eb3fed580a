package oci

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
)

var umaskPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-7]{1,4}$`)
})

func (p *runParser) process() {
	o := p.o
	o.Interactive, o.TTY = p.bool("interactive", false), p.bool("tty", false)
	o.SigProxy, o.RemoveImage = p.bool("sig-proxy", true), p.bool("rmi", false)
	for _, it := range p.items("attach") {
		switch stream := strings.ToLower(it.value); stream {
		case "stdin", "stdout", "stderr":
			o.Attach = append(o.Attach, stream)
		default:
			p.badItem("attach", it, "it is not one of stdin, stdout and stderr")
		}
	}
	if _, ok := p.last("attach"); ok && strings.HasPrefix(p.text("log-driver", ""), "passthrough") {
		p.bad("attach", "it cannot be given together with --log-driver=passthrough")
	}
	if use, ok := p.last("entrypoint"); ok {
		if words := parseEntrypoint(use.value); words != nil {
			o.Entrypoint = &words
		}
	}
	o.WorkDir = p.text("workdir", "")
	o.Init = p.bool("init", false)
	if o.InitPath = p.text("init-path", ""); o.InitPath != "" {
		o.InitPath = p.path(o.InitPath)
		p.initExists()
	}
	o.Personality = p.text("personality", "")
	if o.Personality != "" && o.Personality != "LINUX" && o.Personality != "LINUX32" {
		p.bad("personality", "it is neither LINUX nor LINUX32")
	}
	switch o.Systemd = strings.ToLower(p.text("systemd", "true")); o.Systemd {
	case "true", "false", "always":
	case "":
		o.Systemd = "true"
	default:
		p.bad("systemd", "it is not one of true, false and always")
	}
	p.umask()
	p.stopping()
}

// parseEntrypoint reads a JSON list of strings, or takes the text as one word. As in
// podman, a list of other things leaves an empty word for each of them before the
// text, and null, which is nil, leaves the image's entry point.
func parseEntrypoint(text string) []string {
	words := []string{}
	if err := json.Unmarshal([]byte(text), &words); err != nil {
		words = append(words, text)
	}
	return words
}

func (p *runParser) initExists() {
	if !p.o.Init || p.caller.Host == nil {
		return
	}
	if _, err := p.caller.Host.Stat(p.o.InitPath); err != nil {
		e := badOption(p.written("init-path"), "the binary is not on the node: "+err.Error(), "")
		e.Err, e.Remedy = err, "Leave --init-path out to use careen's init"
		p.fail(e)
	}
}

func (p *runParser) umask() {
	text := p.text("umask", "0022")
	if text == "" {
		return
	}
	if !umaskPattern().MatchString(text) {
		p.bad("umask", "it is not an octal number of at most four digits")
		return
	}
	mask, _ := strconv.ParseUint(text, 8, 32)
	value := uint32(mask)
	p.o.Umask = &value
}

func (p *runParser) stopping() {
	o := p.o
	if use, ok := p.last("stop-signal"); ok && use.value != "" {
		signal, err := parseSignal(use.value)
		if err != nil {
			p.bad("stop-signal", err.Error())
		}
		o.StopSignal = signal
	}
	// Larger values mean no practical limit; they must not overflow.
	o.StopTimeout = time.Duration(min(p.uint("stop-timeout", 10), math.MaxInt32)) * time.Second
	timeout := p.uint("timeout", 0)
	if timeout > math.MaxInt32 {
		e := badOption(p.written("timeout"), fmt.Sprintf("it is more than %d seconds", math.MaxInt32), p.example("timeout"))
		e.Attrs = map[string]any{exitAttr: ExitDenied} // podman's conmon checks this
		p.fail(e)
		return
	}
	o.Timeout = time.Duration(timeout) * time.Second
}

func (p *runParser) environment() {
	o := p.o
	o.Env = make(map[string]string)
	for _, it := range p.items("env-file") {
		content, ok := p.readFile(it, it.value)
		if !ok {
			continue
		}
		if err := parseEnvFile(o.Env, content, p.caller.Environ); err != nil {
			p.badItem("env-file", it, err.Error())
		}
	}
	variables := p.items("env")
	if len(variables) == 1 && variables[0].value == "" {
		variables = nil // podman ignores a single empty --env
	}
	for _, it := range variables {
		if err := parseEnv(o.Env, it.value, p.caller.Environ); err != nil {
			p.badItem("env", it, err.Error())
		}
	}
	o.EnvHost, o.HTTPProxy = p.bool("env-host", false), p.bool("http-proxy", true)
	o.UnsetEnv, o.UnsetEnvAll = p.list("unsetenv"), p.bool("unsetenv-all", false)
	for _, it := range p.items("env-merge") {
		if it.value == "" {
			continue
		}
		if !strings.Contains(it.value, "=") {
			p.badItem("env-merge", it, "it has no =")
			continue
		}
		if _, err := expandWord(it.value, nil); err != nil {
			p.badItem("env-merge", it, err.Error())
		}
		o.EnvMerge = append(o.EnvMerge, it.value)
	}
}

// UsedEnviron returns the caller's variables that the options read: what remains of the
// environment when the rest, which may hold secrets, is not kept. Parsing the command with
// it gives the same.
func (r *Run) UsedEnviron() map[string]string {
	o, used := r.Options, map[string]string{}
	for name, value := range r.caller.Environ {
		variable, isVariable := o.Env[name]
		label, isLabel := o.Labels[name]
		switch {
		case o.EnvHost, name == "HOME", name == "REGISTRY_AUTH_FILE", o.HTTPProxy && contains(proxyVariables, name),
			isVariable && variable == value, isLabel && label == value:
			used[name] = value
		}
	}
	return used
}

func (p *runParser) users() {
	o := p.o
	o.User = p.text("user", "")
	o.Passwd = p.bool("passwd", true)
	o.PasswdEntry, o.GroupEntry = p.text("passwd-entry", ""), p.text("group-entry", "")
	for _, name := range []string{"passwd-entry", "group-entry"} {
		if strings.ContainsAny(p.text(name, ""), "\n\r") {
			p.bad(name, "it holds more than one line")
		}
	}
	items := p.items("group-add")
	for _, it := range items {
		switch {
		case it.value != "keep-groups":
			o.GroupAdd = append(o.GroupAdd, it.value)
		case len(items) > 1:
			p.badItem("group-add", it, "keep-groups cannot be given together with other groups")
		default:
			// Only crun uses the annotation; runc and careen ignore it.
			o.KeepGroups = true
			o.Annotations["run.oci.keep_original_groups"] = "1"
		}
	}
	o.HostUsers = p.list("hostuser")
	p.hostUsersExist()
}

// hostUsersExist looks up the accounts of --hostuser. podman finds an unknown one when it
// writes the container's passwd, so the exit code is that of a bad image.
func (p *runParser) hostUsersExist() {
	if p.caller.Host == nil || !p.o.Passwd {
		return
	}
	for _, it := range p.items("hostuser") {
		if _, err := p.caller.Host.LookupUser(it.value); err != nil {
			e := badOption(it.written, "the node has no such account: "+err.Error(), p.example("hostuser"))
			e.Err, e.Attrs = err, map[string]any{exitAttr: ExitDenied}
			p.fail(e)
		}
	}
}

// noops checks the values of options that have no effect, as podman does.
func (p *runParser) noops() {
	o := p.o
	for _, it := range p.items("publish") {
		if err := checkPort(it.value); err != nil {
			p.badItem("publish", it, err.Error())
		}
		o.Published = true
	}
	for _, it := range p.items("expose") {
		if err := checkExpose(it.value); err != nil {
			p.badItem("expose", it, err.Error())
		}
	}
	p.checkLog()
	switch mode := p.text("sdnotify", "container"); mode {
	case "", "container", "conmon", "ignore", "healthy":
	default:
		p.bad("sdnotify", "it is not one of container, conmon, healthy and ignore")
	}
	if p.text("health-cmd", "") != "" && p.bool("no-healthcheck", false) {
		p.bad("health-cmd", "it cannot be given together with --no-healthcheck")
	}
	if p.text("health-cmd", "") != "" {
		p.checkHealth()
	}
}

// checkLog checks log options, which have no effect: the log is always careen's.
func (p *runParser) checkLog() {
	for _, it := range p.items("log-opt") {
		name, value, ok := strings.Cut(it.value, "=")
		switch {
		case !ok:
			p.badItem("log-opt", it, "it has no =")
		case strings.EqualFold(name, "max-size"):
			if _, err := units.FromHumanSize(value); err != nil {
				p.badItem("log-opt", it, quote(value)+" is not a size")
			}
		case strings.EqualFold(name, "driver") && !knownLogDriver(value):
			p.badItem("log-opt", it, quote(value)+" is not a log driver")
		}
	}
	if driver := p.text("log-driver", ""); !knownLogDriver(driver) {
		p.bad("log-driver", quote(driver)+" is not one of journald, json-file, k8s-file, none and passthrough")
	}
}

func knownLogDriver(name string) bool {
	switch name {
	case "", "journald", "k8s-file", "json-file", "none", "passthrough", "passthrough-tty":
		return true
	}
	return false
}

// checkHealth checks what podman checks only when there is a health command.
func (p *runParser) checkHealth() {
	for _, name := range []string{"health-interval", "health-timeout", "health-start-period"} {
		text := p.text(name, "30s")
		if name == "health-interval" && text == "disable" {
			continue
		}
		d, err := time.ParseDuration(text)
		switch {
		case err != nil:
			p.bad(name, quote(text)+" is not a duration")
		case d < 0, name == "health-timeout" && d == 0:
			p.bad(name, "it is too short")
		}
	}
	if p.uint("health-retries", 3) < 1 {
		p.bad("health-retries", "it must be greater than 0")
	}
}

// checkPort checks [[IP:][PORT]:]PORT[/PROTOCOL], where each PORT may be a range.
func checkPort(text string) error {
	ports, protocol, hasProtocol := strings.Cut(text, "/")
	if hasProtocol && (protocol == "" || strings.Contains(protocol, "/")) {
		return fmt.Errorf("the protocol %s is not valid", quote(protocol))
	}
	ip := ""
	if rest, ok := strings.CutPrefix(ports, "["); ok {
		address, after, found := strings.Cut(rest, "]:")
		if !found || !strings.Contains(after, ":") {
			return fmt.Errorf("it is not [IPv6]:PORT:PORT")
		}
		ip, ports = address, after
	}
	parts := strings.Split(ports, ":")
	if len(parts) == 3 && ip == "" {
		if ip, parts = parts[0], parts[1:]; ip == "" {
			return fmt.Errorf("the address before the ports is empty")
		}
	}
	if len(parts) > 2 {
		return fmt.Errorf("it is not [[IP:]PORT:]PORT")
	}
	if ip != "" && net.ParseIP(ip) == nil {
		return fmt.Errorf("%s is not an IP address", quote(ip))
	}
	length, err := checkRange(parts[len(parts)-1])
	if err != nil {
		return err
	}
	if len(parts) == 2 && parts[0] != "" {
		hostLength, err := checkRange(parts[0])
		if err != nil {
			return err
		}
		if hostLength != length {
			return fmt.Errorf("the two ranges have different lengths")
		}
	}
	return nil
}

func checkExpose(text string) error {
	ports, protocol, _ := strings.Cut(text, "/")
	if strings.Contains(protocol, "/") {
		return fmt.Errorf("it has more than one protocol")
	}
	if strings.Contains(ports, "+") {
		return fmt.Errorf("%s is not a port or a range of ports", quote(ports))
	}
	_, err := checkRange(ports)
	return err
}

// checkRange checks PORT or PORT-PORT and returns how many ports there are.
func checkRange(text string) (int, error) {
	first, last, isRange := strings.Cut(text, "-")
	start, err := checkPortNumber(first)
	if err != nil || !isRange {
		return 1, err
	}
	end, err := checkPortNumber(last)
	if err != nil {
		return 0, err
	}
	if end <= start {
		return 0, fmt.Errorf("%d is not higher than %d", end, start)
	}
	return end - start + 1, nil
}

func checkPortNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 {
		return 0, fmt.Errorf("%s is not a port from 1 to 65535", quote(text))
	}
	return n, nil
}
