package agent

// Route is one endpoint, for the test that compares them with openapi.yaml.
type Route struct {
	Method, Path string
	Query        []string
}

// Routes returns all endpoints.
func (a *Agent) Routes() []Route {
	var all []Route
	for _, rt := range a.routes() {
		all = append(all, Route{Method: rt.method, Path: rt.path, Query: rt.query})
	}
	return all
}

// Survivors is what an outcome says of processes that SIGKILL did not end.
var Survivors = survivors
