package pki

import (
	"crypto/hmac"
	"crypto/sha256"
)

// derive is HMAC-SHA256 with the purpose kept apart from the input by a byte that a purpose cannot hold.
func derive(key []byte, purpose, input string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(purpose))
	mac.Write([]byte{0})
	mac.Write([]byte(input))
	return mac.Sum(nil)
}
