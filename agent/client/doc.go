// Package client talks to an agent over its socket: one method an endpoint, the
// context first, the types of package api.
//
// What the agent refuses comes back as a *[fault.Error] made from its problem
// document, with the agent's code and remedy; an agent that does not answer is an
// error with code unreachable. A method that changes something is never retried:
// package client does not know what its caller may do twice. A run's id makes
// [Client.Submit] safe to repeat. [Client.FollowLogs] and [Client.Reconnect] outlive a
// restart of the agent.
//
// The command line and the tests use it. It needs only the standard library, and
// nothing of the server's internals.
package client
