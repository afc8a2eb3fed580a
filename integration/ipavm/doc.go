// Package ipavm is the proof of the whole chain on one machine: a node in QEMU
// that boots a Debian ramdisk with the real ironic-python-agent and careen, no
// podman, and a conductor that drives it over lookup, heartbeat and IPA's HTTP
// API, with images from a real registry.
//
// build-ramdisk.sh makes the ramdisk (minutes the first time, then it is in
// .cache), "careen ramdisk append" adds the binary under test, and the conductor is
// integration/ipa/conductor. It runs by "make test-ipa-vm", or with
// CAREEN_IPA_VM_TEST=1 in the environment.
package ipavm
