// Package steps decides what may run on a node, and with which options.
//
// It reads three things: the [container] options of ironic-python-agent (IPA)
// as oslo.config reads them, careen's own careen.toml, and the YAML file of
// container steps. [Load] and [LoadSteps] do so. From these, and from what the
// conductor sent at lookup ([Config.WithConductor]), [Config.Resolve] turns a
// [Request] into [Decision] values.
//
// Resolve is the one place where the container policy is applied. A Decision
// can only come from there: one made or changed elsewhere fails
// [Decision.Verify], and whoever executes containers calls that first. The
// package executes nothing, knows no containerd and no HTTP.
//
// With no rules in careen.toml the policy is exactly that of IPA 13's
// ContainerHardwareManager, which integration/ipadiff checks against the real
// one. Where careen differs it refuses more, never less; docs/steps.md lists
// the differences.
package steps
