// Package client talks to an agent over its socket. It has one method for each endpoint,
// with the context first and the types of package api.
//
// Every method returns these errors: a *[fault.Error] made from the agent's problem
// document, with its code and remedy; code unreachable if the agent does not answer or the
// answer cannot be read; code forbidden if the caller may not use the socket; ctx's error
// when ctx has ended. The doc comments name further codes.
//
// A method that changes something is never retried: package client does not know which
// requests its caller may repeat. A run's id makes
// [Client.Submit] safe to repeat. [Client.FollowLogs] and [Client.Reconnect] outlive a
// restart of the agent.
//
// The command line and the tests use it. It needs only the standard library, and
// nothing of the server's internals.
package client
