package agent_test

const childEnv = "CAREEN_TEST_CHILD"

func runChild() {}
