// Package client talks to an agent over its socket: one method an endpoint, the
// context first, the types of package api.
//
// What the agent refuses comes back as a *[fault.Error] made from its problem
// document, with the agent's code and remedy; an agent that does not answer is an
// error with code unreachable. Nothing is retried: package client does not know
// what its caller can stand to do twice. A run's id makes [Client.Submit] safe to
// repeat.
//
// The command line and the tests use it. It needs nothing but the standard
// library, and knows nothing of the server's insides.
package client
