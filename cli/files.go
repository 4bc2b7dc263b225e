package cli

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
)

// readPEM returns a file that holds at least one certificate.
func readPEM(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("CA file: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(b) {
		return "", fmt.Errorf("CA file %s holds no PEM certificate", path)
	}
	return string(b), nil
}

// pathSegment makes s one part of a path.
func pathSegment(s string) string { return url.PathEscape(s) }
