package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
)

// idPrefix returns the letters of a type's ids, as Rancher forms them, and the counter that the type draws from.
func idPrefix(typ string) (prefix, counter string) {
	switch typ {
	case TypeAccount:
		return "1a", typ
	case TypeAgent:
		return "1a", typ // the same letters: what an id means is told by the URL
	case TypeAPIKey, TypeRegistrationToken:
		return "1c", "credential"
	case TypeRegister:
		return "1r", typ
	case TypeHost:
		return "1h", typ
	case TypeContainer:
		return "1i", typ
	case TypeInstanceHostMap:
		return "1ihm", typ
	case TypePullTask:
		return "1pt", typ
	}
	return "", ""
}

// NextID returns a fresh id of the type, "1ihm7", and its number. Numbers rise and are never used twice, on whatever
// replica.
func (s *Store) NextID(ctx context.Context, typ string) (id string, n int64, err error) {
	prefix, counter := idPrefix(typ)
	if prefix == "" {
		return "", 0, fmt.Errorf("%s has no ids", typ)
	}
	s.seqMu.Lock() // so that only other replicas can get between the read and the write
	defer s.seqMu.Unlock()
	key := "seq." + counter
	for range maxTries {
		n, err = s.bump(ctx, key)
		if err == nil {
			return prefix + strconv.FormatInt(n, 10), n, nil
		}
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) && !errors.Is(err, jetstream.ErrKeyExists) {
			break
		}
	}
	return "", 0, fmt.Errorf("next %s id: %w", typ, err)
}

// bump adds one to a counter and returns its new value.
func (s *Store) bump(ctx context.Context, key string) (int64, error) {
	e, err := s.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		_, err := s.kv.Create(ctx, key, []byte("1"))
		return 1, err
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(e.Value()), 10, 64)
	if err != nil {
		return 0, err
	}
	_, err = s.kv.Update(ctx, key, strconv.AppendInt(nil, n+1, 10), e.Revision())
	return n + 1, err
}

// plainKey makes a natural key out of a value that we made ourselves: hex or letters. Others are digested, because not
// every character may be in a key.
func plainKey(v string) string {
	if v == "" {
		return "none"
	}
	for _, c := range []byte(v) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return digestKey(v)
		}
	}
	return v
}

// digestKey makes a natural key out of any value.
func digestKey(v string) string {
	sum := sha256.Sum256([]byte(v))
	return hex.EncodeToString(sum[:16])
}

// externalKey is the index of containers by what the engine calls them.
func externalKey(hostID, externalID string) string {
	if hostID == "" || externalID == "" {
		return ""
	}
	return hostID + "/" + externalID
}
