package exec

// Survivors is what an outcome says of processes that SIGKILL did not end.
var Survivors = survivors
