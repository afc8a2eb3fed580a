// Package container has the words that the agent and the engine share: what a
// container is made from ([CreateSpec]), how it ended ([Exit]), what exists after a
// restart ([Existing]), and the layout of a run's directory ([Dir]).
//
// It does nothing with a container. Package runtime does, package agenttest fakes it,
// and containertest has the suite that both pass. Their interface is declared by its
// consumer.
package container
