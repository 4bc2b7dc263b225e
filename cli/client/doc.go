// Package client talks to the REST interface of a control server for the operator's commands. A [Client] is safe for
// concurrent use; every call blocks until it is answered or its ctx ends, and none is retried, so that nothing is done
// twice. Lists follow the server's paging to the end. Credentials are sent as Basic authentication and appear in no
// error text.
package client
