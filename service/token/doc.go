// Package token makes and checks the short-lived tokens of a node's doors: who may do what, on which host, until when.
//
// A token is a JSON Web Token, signed with HMAC-SHA256 under a key that the nodes and whoever makes tokens for them
// share, or with Ed25519, of which the nodes know only the public half. It names one host and the verbs that it allows; a door takes it for nothing else. Package token keeps no
// state, starts nothing and blocks nowhere; its types are safe for concurrent use.
package token
