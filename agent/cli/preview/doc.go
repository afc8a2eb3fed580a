// Package preview plans a run without an agent, for "careen spec" and "careen explain": it
// parses the options, takes the image and the node from [Inputs], and builds the
// runtime-spec. It pulls nothing and changes nothing.
package preview
