// Package pki holds the keys of a control server: its own certificate authority, the server certificate that the
// authority issues, and the RSA key that signs host access tokens (api.crt).
//
// What must outlive the process is made once and kept in a [Vault], which all replicas of one server share. The
// server's own certificate is not kept: it is issued again at each start, before a third of its life is left, and when
// a client reaches the server at an address that it does not name.
//
// Nothing here starts a goroutine. [Open] does I/O; every method of [Keys], [Issuer] and [Files] is safe for
// concurrent use.
package pki
