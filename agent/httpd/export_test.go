package httpd

// Route is one endpoint, for the test that compares them with openapi.yaml.
type Route struct {
	Method, Path string
	Query        []string
}

// Routes returns all endpoints.
func Routes() []Route {
	var all []Route
	for _, rt := range new(Server).routes() {
		all = append(all, Route{Method: rt.method, Path: rt.path, Query: rt.query})
	}
	return all
}

// NodeFiles are the node's files in a bundle, for the test that puts secrets into them.
var NodeFiles = nodeFiles
