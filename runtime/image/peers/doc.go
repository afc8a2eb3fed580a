// Package peers lets nodes that start together give each other the layers of an
// image, so that a registry sends them to a few nodes and not to all.
//
// [Kept] is what a node has to give: compressed layers that a pull has verified,
// held for a while within a bound and dropped as soon as the node needs the room.
// [Server] gives them away by digest and does nothing else. [Group] is the other
// side: it knows the peers' addresses and which of them do not answer or lie.
//
// Nothing that a peer says is believed. It is asked for bytes whose digest and size
// a registry has named, never for a tag, a manifest or what may run, and it is sent
// no credentials. Package pull reads the bytes and verifies them as any others.
package peers
