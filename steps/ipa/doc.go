// Package ipa has the rules of ironic-python-agent (IPA) and of the Python
// libraries that it reads its files with: oslo.config's format ([Load]), the
// steps file's YAML ([ReadYAML]), how Python splits text and names types
// ([Fields], [Type]), and the names that IPA's hardware managers use ([Reserved]).
//
// The package does not emulate Python. It accepts the input that every reader
// takes in one way, and refuses the rest with the reason and the remedy: values
// that YAML 1.1 and YAML 1.2 read differently, and options that are not text.
// So careen never reads a file in another way than IPA does; integration/ipadiff
// checks that against the real IPA.
//
// The policy is in package steps. Errors here have no fault code; steps adds it.
package ipa
