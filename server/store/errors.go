package store

import "errors"

// The errors that callers tell apart with errors.Is.
var (
	// ErrNotFound says that no such record exists.
	ErrNotFound = errors.New("not found")
	// ErrExists says that a record of that identity exists already.
	ErrExists = errors.New("exists already")
	// ErrConflict says that the record was changed by someone else since it was read.
	ErrConflict = errors.New("changed by someone else")
	// ErrCredentials says that an access key, a secret or a token is unknown or wrong.
	ErrCredentials = errors.New("unknown or wrong credentials")
	// ErrExpired says that a registration token is past its expiry.
	ErrExpired = errors.New("expired")
	// ErrRevoked says that a registration token was revoked or an agent removed.
	ErrRevoked = errors.New("revoked")
	// ErrFull says that a bounded queue is full.
	ErrFull = errors.New("queue is full")
	// ErrUnchanged is returned by the function given to Update to leave the record as it is; Update then succeeds.
	ErrUnchanged = errors.New("unchanged")
)
