package steps

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"time"

	"github.com/careen-project/careen/steps/ipa"
)

// DefaultNetworkWait is how long a pull waits for a node without a network: four of
// DHCP's tries (RFC 2131, section 4.1: after 4, 8, 16 and 32 s), and longer than a
// switch port with spanning tree takes to forward (30 s).
const DefaultNetworkWait = time.Minute

// NodeSettings are the tables [network], [clock] and [tls] of careen.toml.
type NodeSettings struct {
	// NetworkWait is the longest time that a pull waits until the node has a network;
	// 0 does not wait.
	NetworkWait time.Duration
	// ClockRepair permits that a registry's answer sets a clock that is behind.
	ClockRepair bool
	// CAFiles are absolute paths of files with CA certificates, or of directories of
	// such files. They add to the system's certificates.
	CAFiles []string
	// CAFrom is the origin of CAFiles, as in [Source].
	CAFrom string
}

// loadNode reads the tables of NodeSettings.
func (c *Config) loadNode() ([]Warning, error) {
	c.Node = NodeSettings{NetworkWait: DefaultNetworkWait}
	var (
		network struct {
			Wait *string `toml:"wait"` // not a number: of what?
		}
		clock struct {
			Repair *bool `toml:"repair"`
		}
		tls struct {
			CAFiles *[]string `toml:"ca_files"`
		}
		warnings []Warning
	)
	for _, table := range []struct {
		name string
		dst  any
	}{{"network", &network}, {"clock", &clock}, {"tls", &tls}} {
		more, err := c.Section(table.name, table.dst)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, more...)
	}
	if network.Wait != nil {
		wait, err := parseDuration(*network.Wait)
		if err != nil {
			return nil, configError(c.toml.path, c.toml.lines["network"], fmt.Errorf("wait: %w", err))
		}
		c.Node.NetworkWait = wait
		c.sources["network.wait"] = c.toml.at("network")
	}
	if clock.Repair != nil {
		c.Node.ClockRepair = *clock.Repair
		c.sources["clock.repair"] = c.toml.at("clock")
	}
	if tls.CAFiles != nil {
		for _, file := range *tls.CAFiles {
			if !path.IsAbs(file) {
				return nil, configError(c.toml.path, c.toml.lines["tls"], fmt.Errorf("ca_files: %q is not an absolute path", file))
			}
		}
		c.Node.CAFiles, c.Node.CAFrom = *tls.CAFiles, c.toml.at("tls")
		c.sources["tls.ca_files"] = c.Node.CAFrom
	}
	return warnings, nil
}

// IPACAFile returns the path of IPA's own option cafile and the option's origin; "" if
// it is not set.
func (c *Config) IPACAFile() (file, from string) {
	return c.cafile, c.sources[cafileOption]
}

// applyCAFile takes over IPA's cafile. A wrong value is a warning only, because the
// option is for IPA.
func (c *Config) applyCAFile(o ipa.Option) []Warning {
	file, err := ipa.Unescape(o.Value)
	if err == nil && file != "" && !path.IsAbs(file) {
		err = errors.New("it is not an absolute path")
	}
	if err != nil {
		return []Warning{{Key: "DEFAULT.cafile", From: o.From(), Message: "[DEFAULT]cafile is ignored: " + err.Error()}}
	}
	c.cafile, c.sources[cafileOption] = file, o.From()
	return nil
}

// nodeInForce lists NodeSettings for [Config.InForce].
func (c *Config) nodeInForce() []Source {
	all := []Source{
		{Key: "network.wait", Value: c.Node.NetworkWait.String()},
		{Key: "clock.repair", Value: strconv.FormatBool(c.Node.ClockRepair)},
		{Key: "tls.ca_files", Value: quoteList(c.Node.CAFiles)},
	}
	for i := range all {
		all[i].From = c.from(all[i].Key)
	}
	if c.cafile != "" {
		all = append(all, Source{Key: "DEFAULT.cafile", Value: c.cafile, From: c.from(cafileOption)})
	}
	return all
}
