package oci

import (
	"encoding/csv"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// parseMount reads one --mount.
func (p *runParser) parseMount(it item) (Mount, error) {
	kind, fields, err := splitMount(it.value)
	if err != nil {
		return Mount{}, err
	}
	m := Mount{Kind: MountKind(kind), Written: it.written}
	reader := mountReader{mount: &m, once: make(map[string]string), written: it.written}
	switch m.Kind {
	case MountBind:
		err = reader.read(fields, reader.bindField)
	case MountTmpfs, MountRamfs:
		m.Source = kind
		err = reader.read(fields, reader.memoryField)
	case MountDevpts:
		m.Source = kind
		err = reader.read(fields, reader.devptsField)
	case MountVolume:
		err = reader.read(fields, reader.volumeField)
	case "image", "glob", "artifact":
		return m, unsupported(it.written, fmt.Sprintf("mounts of type %s are not supported", kind), "bind a directory of the node")
	default:
		return m, fmt.Errorf("the mount type %s is unknown", quote(kind))
	}
	if err != nil {
		return m, err
	}
	return p.finishMount(m)
}

// finishMount checks what can only be checked once all fields are read.
func (p *runParser) finishMount(m Mount) (Mount, error) {
	if m.Destination == "" {
		return m, fmt.Errorf("it has no target")
	}
	switch m.Kind {
	case MountBind:
		if m.Source == "" {
			m.Source = m.Destination
		}
		m.Source = filepath.Clean(p.path(m.Source))
		options, err := checkVolumeOptions(m.Options)
		m.Options = options
		return m, err
	case MountTmpfs, MountRamfs:
		_, err := m.memoryOptions()
		return m, err
	case MountVolume:
		if m.Source != "" {
			return m, checkVolumeName(m.Source)
		}
	}
	return m, nil
}

// mountReader reads the fields of one --mount into mount.
type mountReader struct {
	mount *Mount
	// once maps a set of fields of which one may be given to the one that was.
	once    map[string]string
	written string
}

// read gives each field to take and reports those that it does not know.
func (r *mountReader) read(fields []string, take func(name, value string, hasValue bool) (bool, error)) error {
	for _, field := range fields {
		name, value, hasValue := strings.Cut(field, "=")
		known, err := r.target(name, value, hasValue)
		if !known && err == nil {
			known, err = take(name, value, hasValue)
		}
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("type %s has no option %s", r.mount.Kind, quote(name))
		}
	}
	return nil
}

// target takes the fields that name the destination.
func (r *mountReader) target(name, value string, hasValue bool) (bool, error) {
	switch name {
	case "target", "dst", "destination":
	default:
		return false, nil
	}
	if !hasValue {
		return true, needsValue(name)
	}
	if err := checkDestination(value); err != nil {
		return true, err
	}
	r.mount.Destination = path.Clean(value)
	return true, nil
}

func needsValue(name string) error { return fmt.Errorf("%s needs a value", name) }

// flag takes an option of which each set may be given once.
func (r *mountReader) flag(set, name string) (bool, error) {
	if other := r.once[set]; other != "" {
		return true, fmt.Errorf("%s and %s cannot be given together", other, name)
	}
	r.once[set] = name
	r.mount.Options = append(r.mount.Options, name)
	return true, nil
}

// common takes the flags that all types but devpts have.
func (r *mountReader) common(name, value string, hasValue bool) (bool, error) {
	switch name {
	case "nosuid", "suid":
		return r.flag("suid", name)
	case "nodev", "dev":
		return r.flag("dev", name)
	case "noexec", "exec":
		return r.flag("exec", name)
	case "U", "chown":
		on, err := parseTrue(name, value, hasValue)
		if err != nil || r.once["U"] != "" {
			return true, fmt.Errorf("U (or chown) can be given only once, as true or false") //nolint:staticcheck // U is the option's name
		}
		r.once["U"] = name
		if on {
			r.mount.Options = append(r.mount.Options, "U")
		}
		return true, nil
	case "consistency":
		// Docker's for macOS, without meaning on Linux.
		return true, nil
	}
	return false, nil
}

func (r *mountReader) bindField(name, value string, hasValue bool) (bool, error) {
	switch name {
	case "bind-nonrecursive":
		r.mount.Options = append(r.mount.Options, "bind")
	case "readonly", "ro", "rw":
		return r.readWrite(name, value, hasValue)
	case "shared", "rshared", "private", "rprivate", "slave", "rslave", "unbindable", "runbindable", "z", "Z":
		r.mount.Options = append(r.mount.Options, name)
	case "bind-propagation":
		if !hasValue {
			return true, needsValue(name)
		}
		r.mount.Options = append(r.mount.Options, value)
	case "src", "source":
		if value == "" {
			return true, needsValue(name)
		}
		r.mount.Source = value
	case "relabel":
		option, ok := map[string]string{"private": "Z", "shared": "z"}[value]
		if !ok || r.once["relabel"] != "" {
			return true, fmt.Errorf("relabel can be given only once, as private or shared")
		}
		r.once["relabel"] = name
		r.mount.Options = append(r.mount.Options, option)
	case "idmap":
		if hasValue {
			name += "=" + value
		}
		r.mount.Options = append(r.mount.Options, name)
	default:
		return r.common(name, value, hasValue)
	}
	return true, nil
}

// readWrite takes ro, rw and readonly, alone or with true or false. As in podman,
// rw=false is ro, while ro=false changes nothing.
func (r *mountReader) readWrite(name, value string, hasValue bool) (bool, error) {
	if r.once["rw"] != "" {
		return true, fmt.Errorf("%s and %s cannot be given together", r.once["rw"], name)
	}
	r.once["rw"] = name
	on, err := parseTrue(name, value, hasValue)
	if err != nil {
		return true, err
	}
	option := name
	if name == "readonly" {
		option = "ro"
	}
	switch {
	case on:
		r.mount.Options = append(r.mount.Options, option)
	case name == "rw":
		r.mount.Options = append(r.mount.Options, "ro")
	}
	return true, nil
}

func (r *mountReader) memoryField(name, value string, hasValue bool) (bool, error) {
	switch name {
	case "tmpcopyup", "notmpcopyup":
		return r.flag("copyup", name)
	case "ro", "rw":
		return r.flag("rw", name)
	case "tmpfs-mode", "tmpfs-size", "ramfs-mode", "ramfs-size":
		option, own := strings.CutPrefix(name, string(r.mount.Kind)+"-")
		if !own {
			return false, nil
		}
		if !hasValue {
			return true, needsValue(name)
		}
		r.mount.Options = append(r.mount.Options, option+"="+value)
		return true, nil
	case "src", "source":
		return true, fmt.Errorf("type %s has no source", r.mount.Kind)
	}
	return r.common(name, value, hasValue)
}

func (r *mountReader) devptsField(name, value string, hasValue bool) (bool, error) {
	switch name {
	case "uid", "gid", "mode", "ptxmode", "newinstance", "max":
	default:
		return false, nil
	}
	if hasValue {
		name += "=" + value
	}
	r.mount.Options = append(r.mount.Options, name)
	return true, nil
}

func (r *mountReader) volumeField(name, value string, hasValue bool) (bool, error) {
	switch name {
	case "ro", "rw":
		return r.flag("rw", name)
	case "readonly":
		return true, fmt.Errorf("type volume takes ro, not docker's readonly")
	case "src", "source":
		if !hasValue {
			return true, needsValue(name)
		}
		r.mount.Source = value
		return true, nil
	case "volume-opt":
		return true, unsupported(r.written, "volumes are directories of the store and have no driver options",
			"Use type=tmpfs with tmpfs-size=, or a bind")
	case "volume-label":
		return true, unsupported(r.written, "podman does not support volume-label either", "leave it out")
	}
	return r.common(name, value, hasValue)
}

// splitMount splits the value of --mount as CSV and takes its type out.
func splitMount(value string) (kind string, fields []string, err error) {
	records, err := csv.NewReader(strings.NewReader(value)).ReadAll()
	if err != nil {
		return "", nil, fmt.Errorf("it is not valid CSV: %w", err)
	}
	if len(records) != 1 {
		return "", nil, fmt.Errorf("it is empty or has several lines")
	}
	found := false
	for _, field := range records[0] {
		name, text, _ := strings.Cut(field, "=")
		if !found && name == "type" && strings.Count(field, "=") == 1 {
			kind, found = text, true
			continue
		}
		fields = append(fields, field)
	}
	if !found {
		return "", nil, fmt.Errorf("it has no type=")
	}
	return kind, fields, nil
}

// parseTrue reads the optional value of a flag such as ro=true.
func parseTrue(name, value string, hasValue bool) (bool, error) {
	if !hasValue {
		return true, nil
	}
	switch strings.ToLower(value) {
	case "true", "false":
		on, _ := strconv.ParseBool(strings.ToLower(value))
		return on, nil
	}
	return false, fmt.Errorf("%s can only be true or false", name)
}
