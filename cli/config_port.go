package cli

// PortConfig is the port app.http.port: how it speaks and who may come.
type PortConfig struct {
	Listen      string // address without a port; "" is all
	TLS         string // own, files or off
	CertFile    string
	KeyFile     string
	TokenKey    string   // file of the key that tokens are checked with
	ClientCA    string   // file of the authority of client certificates
	ClientNames []string // of client certificates; nil is every one of the authority
}

// configured tells whether the port shall open: only where it is said who may come.
func (c *Config) portConfigured() bool {
	return c.Node.HTTPPort != 0 && (c.Port.TokenKey != "" || c.Port.ClientCA != "")
}

// portKeys are the keys of the node port, beside app.http.port itself.
func portKeys() []configKey {
	return []configKey{
		key("app.http.listen", "address of the node port, without a port; empty: all of the host's",
			text(func(c *Config) *string { return &c.Port.Listen })).vars("DROVER_HTTP_LISTEN").flagged("http-listen"),
		key("app.http.tls", "own: a certificate of the node's own authority; files; off: plain HTTP, on loopback alone",
			oneOf(func(c *Config) *string { return &c.Port.TLS }, "own", "files", "off")).vars("DROVER_HTTP_TLS").flagged("http-tls").defaults("own"),
		key("app.http.cert-file", "certificate with tls=files",
			dir(func(c *Config) *string { return &c.Port.CertFile })).vars("DROVER_HTTP_CERT_FILE").flagged("http-cert"),
		key("app.http.key-file", "its key",
			dir(func(c *Config) *string { return &c.Port.KeyFile })).vars("DROVER_HTTP_KEY_FILE").flagged("http-key"),
		key("app.http.token-key-file", "key of the tokens: 32 bytes in hex, mode 0600, or an Ed25519 public key in PEM",
			dir(func(c *Config) *string { return &c.Port.TokenKey })).vars("DROVER_HTTP_TOKEN_KEY_FILE").flagged("http-token-key-file"),
		key("app.http.client-ca-file", "authority whose client certificates may do everything",
			dir(func(c *Config) *string { return &c.Port.ClientCA })).vars("DROVER_HTTP_CLIENT_CA_FILE").flagged("http-client-ca"),
		key("app.http.client-names", "names in client certificates that may come; empty: every one of the authority",
			list(func(c *Config) *[]string { return &c.Port.ClientNames })).vars("DROVER_HTTP_CLIENT_NAMES").of(kindList),
	}
}
