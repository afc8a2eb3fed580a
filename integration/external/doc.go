// Package external tests careen as a client of a containerd of another process, of
// the oldest and the newest version that it takes. The containerds are built from
// their modules into .cache; see versions in external_test.go.
package external
