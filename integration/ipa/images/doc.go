// Package images makes the images that the tests of IPA run, in a real registry:
//
//	ipa/ok:1     writes {"firmware": "2.1"} as its result
//	ipa/fail:1   says "cannot find controller" and exits with 3
//	ipa/wait:1   says "half-way" and waits for the file /gate/open
//
// Each is busybox with a script, so a container of it is a real one.
package images
