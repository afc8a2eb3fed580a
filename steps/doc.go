// Package steps decides which containers may run on a node, and with which options.
//
//  1. [Load] reads the [container] options of ironic-python-agent (IPA) and
//     careen.toml. [LoadSteps] reads the YAML file of container steps. The formats
//     of IPA's files are in package ipa.
//  2. [Config.WithConductor] applies the options that the conductor sent at lookup.
//  3. [Config.Resolve] turns a [Request] into [Decision] values, or refuses it.
//
// Only Resolve applies the container policy. A Decision that was made or changed
// elsewhere fails [Decision.Verify], which the executor calls before it starts a
// container. The package executes nothing and knows neither containerd nor HTTP.
//
// Without rules in careen.toml the policy is that of IPA 13's
// ContainerHardwareManager; integration/ipadiff checks that against the real IPA.
// Where careen differs, it refuses more, never less; docs/steps.md lists the
// differences.
package steps
