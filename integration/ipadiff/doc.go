// Package ipadiff holds careen's steps and policy against those of the real
// ironic-python-agent.
//
// setup.sh installs IPA from the Python package index into .cache/ipa. A
// Python process for each test, oracle.py, answers what IPA does with generated
// configurations, steps files and step arguments, and the tests compare that with
// package steps: the same decision, the same options, the same lists. Nothing
// that IPA refuses may be allowed. Where careen refuses more than IPA the reason
// has to be one of a fixed list, which docs/steps.md repeats.
//
// reserved.py makes steps/ipa/reserved.txt, and a test says when that is out of date.
package ipadiff
