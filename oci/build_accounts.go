package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// accounts adds lines to /etc/passwd and /etc/group for --hostuser and for a
// numeric user or group that the image does not know: to the file itself, or with a
// read-only root to a copy that is mounted over it.
func (b *builder) accounts() error {
	if !b.o.Passwd || (b.userSpec() == "" && len(b.o.HostUsers) == 0) {
		return nil
	}
	if !b.hasMount("/etc/passwd") {
		lines, err := b.passwdLines()
		if err != nil {
			return err
		}
		if err := b.addLines("passwd", lines); err != nil {
			return err
		}
	}
	if b.hasMount("/etc/group") {
		return nil
	}
	line, err := b.groupLine()
	if err != nil {
		return err
	}
	return b.addLines("group", line)
}

func (b *builder) addLines(name, lines string) error {
	if lines == "" {
		return nil
	}
	file := "/etc/" + name
	var original []byte
	if b.in.Image.Files != nil {
		content, err := b.imageFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading %s of the image: %w", file, err)
		}
		original = content
	}
	if !b.o.ReadOnly {
		b.plan.RootAppends = append(b.plan.RootAppends, PlanAppend{Path: file, Content: []byte(lines)})
		return nil
	}
	b.engineBind(file, b.file(name, append(append([]byte(nil), original...), lines...), 0o644))
	return nil
}

// inImage reports whether the image's own file knows an account or group. Podman
// looks there only, whatever is mounted.
func (b *builder) inImage(name string, match func(fields []string) bool) (bool, error) {
	if b.in.Image.Files == nil {
		return false, nil
	}
	content, err := b.imageFile("/etc/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading /etc/%s of the image: %w", name, err)
	}
	for _, line := range strings.Split(string(content), "\n") {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) > 2 && match(fields) {
			return true, nil
		}
	}
	return false, nil
}

// hasID matches a line by its number or name, as podman does.
func hasID(id string) func(fields []string) bool {
	n, err := strconv.Atoi(id)
	return func(fields []string) bool {
		if err != nil {
			return fields[0] == id
		}
		number, err := strconv.Atoi(fields[2])
		return err == nil && number == n
	}
}

func (b *builder) passwdLines() (string, error) {
	var lines strings.Builder
	for _, name := range b.o.HostUsers {
		line, err := b.hostUserLine(name)
		if err != nil {
			return "", err
		}
		lines.WriteString(line)
	}
	userPart, groupPart, _ := strings.Cut(b.userSpec(), ":")
	uid, err := strconv.ParseUint(userPart, 10, 32)
	if err != nil {
		return lines.String(), nil
	}
	userPart = strconv.FormatUint(uid, 10)
	known, err := b.inImage("passwd", hasID(userPart))
	if err != nil || known {
		return lines.String(), err
	}
	gid := "0"
	if groupPart != "" {
		gid = strconv.Itoa(b.account.gid)
	}
	lines.WriteString(b.passwdLine(userPart, userPart, gid, "container user", b.spec.Process.Cwd))
	return lines.String(), nil
}

// hostUserLine is the line for one --hostuser. Its home is the working directory,
// unless the account's own home is mounted. HOME becomes that too if it is not set.
func (b *builder) hostUserLine(name string) (string, error) {
	account, err := b.lookupHost(name)
	if err != nil {
		return "", Errors{asFault(err, "--hostuser="+name, "")}
	}
	for _, id := range []string{account.name, account.uid} {
		known, err := b.inImage("passwd", hasID(id))
		if err != nil || known {
			return "", err
		}
	}
	home := b.spec.Process.Cwd
	for dir := path.Clean(account.home); dir != "/" && dir != "."; dir = path.Dir(dir) {
		if b.hasMount(dir) {
			home = account.home
			break
		}
	}
	if _, ok := b.env["HOME"]; !ok {
		b.env["HOME"] = home
	}
	return b.passwdLine(account.name, account.uid, account.gid, account.fullName, home), nil
}

// passwdLine writes a line in podman's form, or by the template of --passwd-entry.
func (b *builder) passwdLine(name, uid, gid, fullName, home string) string {
	if b.o.PasswdEntry == "" {
		return fmt.Sprintf("%s:*:%s:%s:%s:%s:/bin/sh\n", name, uid, gid, fullName, home)
	}
	return replaceInOrder(b.o.PasswdEntry,
		"$USERNAME", name, "$UID", uid, "$GID", gid, "$NAME", fullName, "$HOME", home) + "\n"
}

// replaceInOrder replaces the pairs one after another, as podman does.
func replaceInOrder(text string, pairs ...string) string {
	for i := 0; i < len(pairs); i += 2 {
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// groupLine is the line for a numeric group, or the group of a lone numeric user,
// that the image does not know.
func (b *builder) groupLine() (string, error) {
	userPart, group, named := strings.Cut(b.userSpec(), ":")
	if !named {
		group = userPart
	}
	gid, err := strconv.ParseUint(group, 10, 32)
	if err != nil {
		return "", nil
	}
	known, err := b.inImage("group", hasID(group))
	if err != nil || known {
		return "", err
	}
	number := strconv.FormatUint(gid, 10)
	if b.o.GroupEntry != "" {
		return replaceInOrder(b.o.GroupEntry, "$GROUPNAME", number, "$GID", number, "$USERLIST", userPart) + "\n", nil
	}
	return fmt.Sprintf("%s:x:%s:%s\n", number, number, userPart), nil
}
