// Package policy decides whether a request may run, and with which options.
//
// [Policy.Resolve] takes all decisions on a request before the agent answers it:
//
//  1. The files of IPA and the steps file are read again, since they may have changed.
//  2. Package steps decides who may run what: it applies the steps file, IPA's
//     [container] options and the rules of careen.toml. The result is one or more
//     decisions, each with an image and its options.
//  3. Package oci parses the options of each decision.
//  4. The options are compared with the node: cgroup limits, AppArmor, SELinux.
//  5. policy.json refuses the images that it rejects by name.
//
// The result is a [Resolved] with a [Part] for each container. A request that fails in
// any step is refused, and nothing has been pulled. Only two decisions are left for the
// pull, because they need the registry's answer: the full name of an image that was
// requested by a short name, and the signatures that policy.json requires.
//
// The package runs nothing and knows no HTTP.
package policy
