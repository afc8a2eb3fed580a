package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/careen-project/careen/agent/fault"
	"github.com/moby/sys/user"
)

// execUser is the user of the process.
type execUser struct {
	uid, gid int
	sgids    []int
	home     string
}

// userSpec is --user or the image's USER.
func (b *builder) userSpec() string {
	if b.o.User != "" {
		return b.o.User
	}
	return b.image.User
}

// accountFile returns /etc/passwd or /etc/group as the container will have it, nil
// if it has none: a bind over the file or over /etc wins over the image.
func (b *builder) accountFile(name string) ([]byte, error) {
	file := "/etc/" + name
	source := ""
	for _, m := range b.mounts {
		switch m.Destination {
		case file:
			source = m.Source
		case "/etc":
			if source == "" {
				source = path.Join(m.Source, name)
			}
		}
	}
	var content []byte
	var err error
	switch {
	case source != "" && b.in.Host != nil:
		content, err = b.in.Host.ReadFile(source, maxFile)
	case b.in.Image.Files != nil:
		content, err = b.imageFile(file)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, exitFault(fault.BadImage, ExitDenied, b.in.Image.Reference, fmt.Sprintf("%s: %v", file, err),
			"Use an image whose "+file+" is a file, and mount nothing else there", err)
	}
	if err != nil {
		return nil, nil
	}
	return content, nil
}

// imageFile reads a file of the image.
func (b *builder) imageFile(file string) ([]byte, error) {
	return b.in.Image.Files.ReadFile(file, maxFile)
}

// reader returns nil for an absent file, not an empty reader: only with a file must names
// be known.
func reader(content []byte) io.Reader {
	if content == nil {
		return nil
	}
	return bytes.NewReader(content)
}

// lookupUser resolves the user and the supplementary groups in the image's files.
func (b *builder) lookupUser() error {
	passwd, err := b.accountFile("passwd")
	if err != nil {
		return err
	}
	group, err := b.accountFile("group")
	if err != nil {
		return err
	}
	spec := b.userSpec()
	found, err := user.GetExecUser(spec, nil, reader(passwd), reader(group))
	if err == nil {
		err = b.checkUser(spec)
	}
	if err != nil && contains(b.o.HostUsers, spec) {
		found, err = b.hostUser(spec)
	}
	if err != nil {
		return exitFault(fault.BadOption, ExitDenied, b.in.Image.Reference, err.Error(),
			"Use a user and group of the image, or numbers such as --user=1000:1000", err)
	}
	b.account = execUser{uid: found.Uid, gid: found.Gid, sgids: found.Sgids, home: found.Home}
	b.spec.Process.User.Umask = b.o.Umask
	if spec != "" {
		b.spec.Process.User.UID, b.spec.Process.User.GID = uint32(found.Uid), uint32(found.Gid)
		b.addGroup(found.Gid)
	}
	return b.groups(group)
}

// checkUser repeats podman's first check of the user. It uses the image's own files, even
// if mounts cover them; a number has only digits, and everything after the first colon is
// the group.
func (b *builder) checkUser(spec string) error {
	userPart, groupPart, _ := strings.Cut(spec, ":")
	for _, lookup := range []struct{ what, file, name string }{{"user", "passwd", userPart}, {"group", "group", groupPart}} {
		if _, err := strconv.ParseUint(lookup.name, 10, 32); err == nil || lookup.name == "" {
			continue
		}
		known, err := b.inImage(lookup.file, func(fields []string) bool { return fields[0] == lookup.name })
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("the image's own /etc/%s has no %s %s", lookup.file, lookup.what, quote(lookup.name))
		}
	}
	return nil
}

// groups adds --group-add, then the user's own groups unless a group was named.
func (b *builder) groups(group []byte) error {
	if len(b.o.GroupAdd) > 0 {
		gids, err := addedGroups(b.o.GroupAdd, group)
		if err != nil {
			return exitFault(fault.BadOption, ExitDenied, b.in.Image.Reference, "--group-add: "+err.Error(),
				"Use each group of the image once, or numbers such as --group-add=6", err)
		}
		for _, gid := range gids {
			b.addGroup(gid)
		}
	}
	if strings.Contains(b.userSpec(), ":") {
		return nil
	}
	for _, gid := range b.account.sgids {
		b.addGroup(gid)
	}
	return nil
}

// maxID is the largest user or group id: kernels and files of 32 bits have no other.
const maxID = 1<<31 - 1

// addedGroups returns the numbers of the groups that --group-add names. As in podman
// 4.3.1, each name takes the first line of the file whose group no earlier one took,
// so that a name given twice is not found the second time; a number is found always.
func addedGroups(names []string, file []byte) ([]int, error) {
	lines, err := user.ParseGroup(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	var gids []int
	taken := make(map[int]bool)
	take := func(gid int) {
		if !taken[gid] {
			taken[gid] = true
			gids = append(gids, gid)
		}
	}
	for _, name := range names {
		gid, repeated := -1, false
		for _, line := range lines {
			if line.Name != name && strconv.Itoa(line.Gid) != name {
				continue
			}
			if !taken[line.Gid] {
				gid = line.Gid
				break
			}
			repeated = true
		}
		if gid < 0 {
			if gid, err = strconv.Atoi(name); err != nil && repeated {
				return nil, fmt.Errorf("the group %s is added twice, which podman 4.3.1 refuses", quote(name))
			} else if err != nil {
				return nil, fmt.Errorf("the image's /etc/group has no group %s", quote(name))
			}
		}
		if gid < 0 || gid > maxID {
			return nil, fmt.Errorf("%s is not a group id from 0 to %d", quote(name), maxID)
		}
		take(gid)
	}
	return gids, nil
}

func (b *builder) addGroup(gid int) {
	gids := &b.spec.Process.User.AdditionalGids
	for _, other := range *gids {
		if other == uint32(gid) {
			return
		}
	}
	*gids = append(*gids, uint32(gid))
}

// hostAccount is a line of the node's passwd.
type hostAccount struct {
	name, uid, gid, fullName, home string
}

func (b *builder) lookupHost(name string) (hostAccount, error) {
	if b.in.Host == nil {
		return hostAccount{}, needHost("--hostuser")
	}
	line, err := b.in.Host.LookupUser(name)
	if err != nil {
		return hostAccount{}, err
	}
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) < 6 {
		return hostAccount{}, fmt.Errorf("the node's account %s is not in passwd format", quote(name))
	}
	fullName, _, _ := strings.Cut(fields[4], ",")
	return hostAccount{name: fields[0], uid: fields[2], gid: fields[3], fullName: fullName, home: fields[5]}, nil
}

func (b *builder) hostUser(name string) (*user.ExecUser, error) {
	account, err := b.lookupHost(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(account.uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(account.gid)
	if err != nil {
		return nil, err
	}
	return &user.ExecUser{Uid: uid, Gid: gid, Home: account.home}, nil
}

// user completes the environment with the user's home.
func (b *builder) user() error {
	if _, ok := b.env["HOME"]; !ok && b.account.home != "" {
		b.env["HOME"] = b.account.home
	}
	b.spec.Process.Env = envList(b.env)
	return nil
}
