package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/store"
	"github.com/sirupsen/logrus"
)

// DefaultListen is the address of [Config.Listen] where none is given.
const DefaultListen = ":8443"

// DefaultImage is the agent image of the one-liner where [Config.Image] is empty.
const DefaultImage = "droverhq/drover:latest"

// A TLSMode says how clients reach the server.
type TLSMode string

// The values of [TLSMode]. The zero value means TLSOwn.
const (
	TLSOwn   TLSMode = "own"   // a certificate of the server's own authority, made at the first start
	TLSFiles TLSMode = "files" // a certificate that the operator keeps in files
	TLSOff   TLSMode = "off"   // plain HTTP: on loopback, or behind a proxy that speaks TLS
)

// TLS says how clients reach the server.
type TLS struct {
	Mode     TLSMode
	CertFile string // TLSFiles: the certificate with its intermediates, PEM
	KeyFile  string // TLSFiles
	CAFile   string // TLSFiles: a private authority, which agents then pin; empty where agents know the authority
}

// Config is what a server needs. Only DataDir is required.
type Config struct {
	// DataDir holds the records and keys (0700, made if absent). Two processes cannot share one.
	DataDir string
	// Listen is "host:port" or ":port"; port 0 takes a free one. Empty means DefaultListen.
	Listen string
	// Hosts are the names and addresses under which clients reach the server: they are put into its certificate, and
	// the first one into [Server.URL].
	Hosts []string
	// URL is the address that agents are told, "https://drover.example"; empty: made of Hosts and Listen.
	URL string
	TLS TLS
	// NATS are the servers of an external NATS cluster that several replicas share. Empty: embedded in this process.
	NATS []string
	// ReplicaURL is where the other replicas of such a cluster reach this one, "https://10.0.0.7:8443"; empty: made of
	// Listen and the machine's address.
	ReplicaURL string
	// NATSReplicas is how many servers of that cluster keep a copy of each record. 0 means 1.
	NATSReplicas int
	// SealKey encrypts the server's private keys where they must lie in that cluster. At least 16 bytes.
	SealKey []byte
	// TrustedProxies may set X-Forwarded headers. Loopback always may.
	TrustedProxies []netip.Prefix
	// Image is the agent image that the one-liner runs. Empty means DefaultImage.
	Image string
	// Version is told to agents and clients.
	Version string
	// Web is the console, served at /. Nil: none.
	Web fs.FS
	// OnAdminKey is called with the admin key when it is made: at the first start, and never again with this key. It is
	// called before Ready, and may block the start.
	OnAdminKey func(key string)
	// Log gets what happens. Nil means nothing does.
	Log logrus.FieldLogger
	// Drain bounds how long requests may take to end at shutdown. 0 means 5 s.
	Drain time.Duration
	// Timings of the agents' sockets. The zero value is Rancher's.
	Timings hub.Timings
	// LogToken makes the tokens for the log services of hosts. Nil: none is sent.
	LogToken func(host *store.Host, user string) (string, error)
	// LogLocate finds the host of a task or request for ?taskId= and ?requestId=. Nil: they are not known.
	LogLocate func(ctx context.Context, task, request string) (node string, err error)
	// Now is the clock of certificates, tokens and records; nil means the machine's.
	Now func() time.Time
}

// complete checks c and fills in what is empty.
func (c *Config) complete() error {
	if c.DataDir == "" {
		return errors.New("server: no data directory is given")
	}
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("server: listen address %q: %w", c.Listen, err)
	} else if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("server: listen address %q: %w", c.Listen, err)
	}
	if err := c.completeTLS(); err != nil {
		return err
	}
	for _, where := range []*string{&c.URL, &c.ReplicaURL} {
		if *where == "" {
			continue
		}
		u, err := url.Parse(*where)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return fmt.Errorf("server: %q is no address like https://drover.example:8443", *where)
		}
		*where = u.Scheme + "://" + u.Host
	}
	if c.SealKey != nil && len(c.SealKey) < 16 {
		return errors.New("server: the seal key is shorter than 16 bytes")
	}
	if c.Image == "" {
		c.Image = DefaultImage
	}
	if c.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		c.Log = l
	}
	if c.Drain <= 0 {
		c.Drain = 5 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

func (c *Config) completeTLS() error {
	switch c.TLS.Mode {
	case "":
		c.TLS.Mode = TLSOwn
	case TLSOwn, TLSOff:
	case TLSFiles:
		if c.TLS.CertFile == "" || c.TLS.KeyFile == "" {
			return errors.New("server: TLS with files needs a certificate file and a key file")
		}
		return nil
	default:
		return fmt.Errorf("server: unknown TLS mode %q: want own, files or off", c.TLS.Mode)
	}
	if c.TLS.CertFile != "" || c.TLS.KeyFile != "" || c.TLS.CAFile != "" {
		return fmt.Errorf("server: TLS mode %q takes no certificate files", c.TLS.Mode)
	}
	return nil
}
