package oci

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// cdiPattern is the form of a CDI device's name: vendor/class=name.
var cdiPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*/[A-Za-z][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*$`)
})

func (p *runParser) devices() {
	o := p.o
	for _, it := range p.items("device") {
		if cdiPattern().MatchString(it.value) {
			e := unsupported(it.written, "CDI devices are not supported", "Name the paths of the device nodes")
			e.Attrs = map[string]any{exitAttr: ExitDenied} // podman checks this when it starts the container
			p.fail(e)
			continue
		}
		if o.Privileged {
			continue // podman does not check them: all devices are present
		}
		device, err := parseDevice(it)
		if err != nil {
			p.fail(asFault(err, it.written, p.example("device")))
			continue
		}
		device.relative = !filepath.IsAbs(device.Source)
		device.Source = p.path(device.Source)
		o.Devices = append(o.Devices, device)
		if p.caller.Host != nil {
			if _, err := resolveDevice(p.caller.Host, device); err != nil {
				p.fail(asFault(err, it.written, p.example("device")))
			}
		}
	}
	for _, it := range p.items("device-cgroup-rule") {
		rule, err := parseDeviceRule(it.value)
		if err != nil {
			p.badItem("device-cgroup-rule", it, err.Error())
			continue
		}
		o.Resources.DeviceRules = append(o.Resources.DeviceRules, rule)
	}
	r := &o.Resources
	r.WeightDevices = p.rates("blkio-weight-device", parseWeight)
	r.ReadBps = p.rates("device-read-bps", parseBytesRate)
	r.WriteBps = p.rates("device-write-bps", parseBytesRate)
	r.ReadIOPS = p.rates("device-read-iops", parseOpsRate)
	r.WriteIOPS = p.rates("device-write-iops", parseOpsRate)
}

// parseDevice reads PATH[:PATH][:ACCESS].
func parseDevice(it item) (Device, error) {
	device := Device{Written: it.written}
	parts := strings.Split(it.value, ":")
	if parts[0] == "" || len(parts) > 3 {
		return device, fmt.Errorf("it is not PATH[:PATH][:ACCESS]")
	}
	device.Source = parts[0]
	if len(parts) == 3 {
		if !validAccess(parts[2]) {
			return device, fmt.Errorf("%s is not an access such as rwm", quote(parts[2]))
		}
		device.Access = parts[2]
	}
	if len(parts) > 1 {
		switch {
		case validAccess(parts[1]):
			device.Access, device.twice = parts[1], len(parts) == 3
		case strings.HasPrefix(parts[1], "/"):
			device.Destination = parts[1]
		default:
			return device, fmt.Errorf("%s is neither an absolute path nor an access such as rwm", quote(parts[1]))
		}
	}
	return device, nil
}

// validAccess is true for each of r, w and m at most once, and at least one.
func validAccess(access string) bool {
	for i, c := range access {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(access[:i], c) {
			return false
		}
	}
	return access != ""
}

// resolved is a device node of the node as the container gets it.
type resolved struct {
	device specs.LinuxDevice
	access string
}

// maxDevices bounds what one --device of a directory gives.
const maxDevices = 4096

// resolveDevice follows a link and expands a directory.
func resolveDevice(host Host, d Device) ([]resolved, error) {
	source := d.Source
	if target, err := host.EvalSymlinks(source); err == nil {
		// podman resolves the last component's link only, and the device found is
		// the same; the default destination is the target in both cases.
		if info, err := host.Lstat(source); err == nil && isSymlink(info) {
			source = target
		}
	}
	info, err := host.Stat(source)
	if err != nil {
		return nil, fmt.Errorf("the device is not on the node: %w", err)
	}
	destination := d.Destination
	if destination == "" {
		destination = source
	}
	access := d.Access
	if access == "" {
		access = "rwm"
	}
	if !info.IsDir() {
		device, err := host.Device(source)
		if err != nil {
			return nil, fmt.Errorf("%s is not a device node: %w", source, err)
		}
		device.Path = destination
		return []resolved{{device, access}}, nil
	}
	if d.twice {
		return nil, fmt.Errorf("the access is given twice")
	}
	if d.relative {
		return nil, fmt.Errorf("%s is a directory; its path must be absolute", quote(source))
	}
	var devices []resolved
	if err := walkDevices(host, source, destination, access, &devices, 0); err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("there are no device nodes below %s", source)
	}
	return devices, nil
}

// walkDevices collects the device nodes below dir, which is not followed into links.
func walkDevices(host Host, dir, destination, access string, devices *[]resolved, depth int) error {
	const maxDepth = 16
	entries, err := host.ReadDir(dir)
	if err != nil || depth > maxDepth {
		// podman ignores a directory that vanishes while it is read, too.
		return nil
	}
	for _, entry := range entries {
		file, target := path.Join(dir, entry.Name()), path.Join(destination, entry.Name())
		if entry.IsDir() {
			if err := walkDevices(host, file, target, access, devices, depth+1); err != nil {
				return err
			}
			continue
		}
		if !isDevice(entry.Type()) {
			continue
		}
		device, err := host.Device(file)
		if err != nil {
			return fmt.Errorf("%s is not a device node: %w", file, err)
		}
		if len(*devices) >= maxDevices {
			return fmt.Errorf("there are more than %d devices below %s", maxDevices, dir)
		}
		device.Path = target
		*devices = append(*devices, resolved{device, access})
	}
	return nil
}

// parseDeviceRule reads TYPE MAJOR:MINOR ACCESS.
func parseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	rule := specs.LinuxDeviceCgroup{Allow: true}
	fields := strings.Split(text, " ")
	if len(fields) != 3 {
		return rule, fmt.Errorf("%s is not a type, MAJOR:MINOR and an access", quote(text))
	}
	rule.Type, rule.Access = fields[0], fields[2]
	if rule.Type != "a" && rule.Type != "b" && rule.Type != "c" {
		return rule, fmt.Errorf("the type %s is not a, b or c", quote(rule.Type))
	}
	if strings.Trim(rule.Access, "rwm") != "" {
		return rule, fmt.Errorf("the access %s is not one such as rwm", quote(rule.Access))
	}
	major, minor, _ := strings.Cut(fields[1], ":")
	var err error
	if rule.Major, err = deviceNumber(major); err != nil {
		return rule, err
	}
	if minor != "" {
		rule.Minor, err = deviceNumber(minor)
	} else if strings.Contains(fields[1], ":") {
		err = fmt.Errorf("the minor number is empty")
	}
	return rule, err
}

// deviceNumber reads a number, or * as nil.
func deviceNumber(text string) (*int64, error) {
	if text == "*" {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return nil, fmt.Errorf("%s is neither a number nor *", quote(text))
	}
	number := int64(n)
	return &number, nil
}

// rates reads DEVICE:RATE options. A later one for the same device wins.
func (p *runParser) rates(name string, parse func(string) (uint64, error)) []DeviceRate {
	var rates []DeviceRate
next:
	for _, it := range p.items(name) {
		device, text, ok := strings.Cut(it.value, ":")
		if !ok || !strings.HasPrefix(device, "/dev/") {
			p.badItem(name, it, "it is not /dev/NAME:VALUE")
			continue
		}
		value, err := parse(text)
		if err != nil {
			p.badItem(name, it, err.Error())
			continue
		}
		rate := DeviceRate{Path: device, Rate: value, Written: it.written}
		if p.caller.Host != nil {
			if _, err := rateDevice(p.caller.Host, rate); err != nil {
				p.badItem(name, it, err.Error())
			}
		}
		for i := range rates {
			if rates[i].Path == device {
				rates[i] = rate
				continue next
			}
		}
		rates = append(rates, rate)
	}
	return rates
}

// rateDevice looks up the device of a rate, through links.
func rateDevice(host Host, rate DeviceRate) (specs.LinuxDevice, error) {
	file, err := host.EvalSymlinks(rate.Path)
	if err != nil {
		return specs.LinuxDevice{}, fmt.Errorf("the device is not on the node: %w", err)
	}
	device, err := host.Device(file)
	if err != nil {
		return device, fmt.Errorf("%s is not a device node: %w", rate.Path, err)
	}
	return device, nil
}

func parseWeight(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 0)
	if err != nil || (n > 0 && (n < 10 || n > 1000)) {
		return 0, fmt.Errorf("%s is not a weight from 10 to 1000", quote(text))
	}
	return n, nil
}

func parseBytesRate(text string) (uint64, error) {
	n, err := parseSize(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s is not a number of bytes", quote(text))
	}
	return uint64(n), nil
}

func parseOpsRate(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a number", quote(text))
	}
	return n, nil
}
