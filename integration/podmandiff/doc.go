// Package podmandiff holds careen's meaning of run options against the real podman.
//
// Option sets are drawn at random from a grammar of all options that careen
// implements, in every spelling that podman's parser takes, right and wrong values
// mixed. Debian's podman 4.3.1 runs each set with an OCI runtime that keeps the
// config.json it is given and then fails, so that no container ever starts: about a
// tenth of a second a set. The same set goes through package oci, and both must be
// refused, or both specs must be equal after the differences that package oci lists
// have been taken out. A failing set is shrunk by rapid.
//
// A second test gives option sets that people thought of, testdata/sets.txt: each
// option in all spellings and at the edges of its values. A run takes some of them.
//
// A third gives options of pull to podman and to the built binary, with real registries,
// and a fourth a policy.json with images that are signed in many ways. Debian's podman
// looks for the signatures and was built without what verifies them.
//
// A difference has to show in three attempts, since podman now and then fails for
// reasons of its own. The tests need root and podman and are skipped without. The seed is printed;
// -args -sets N makes a longer run, -listed 0 takes all listed sets, -mutate changes a
// character of every other random value, -all lists every difference unshrunk, and -rapid.seed N
// repeats a run:
//
//	make test-podman-long
//	go test ./integration/podmandiff -v -args -sets 5000 -mutate -all
//
// On a machine with cgroup v1 or the hybrid layout, half of the sets are run in a
// mount namespace where /sys/fs/cgroup is cgroup2, so both are covered everywhere
// but on pure cgroup2 machines, which have no other.
package podmandiff
