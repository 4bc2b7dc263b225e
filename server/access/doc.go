// Package access is the server's way to the streams of its hosts. Agents keep tunnels open to it ([Access.ServeTunnel]),
// and a request for a host goes through the host's tunnel to the handler that the agent serves ([Access.ServeHost]):
// every method, upgrades to WebSocket, SPDY or anything else, bodies in both directions at once.
//
// What it promises: an agent has one tunnel among all replicas, the one that it dialled last; older ones are closed. A
// replica that does not hold the tunnel passes the request on to the one that does, once. A request for an agent that is
// connected but whose tunnel is being dialled waits a moment. What the caller showed to the server to be let in never
// reaches a host. Tunnels and streams are bounded. [Access.Close] ends all tunnels and waits for the requests in them.
package access
