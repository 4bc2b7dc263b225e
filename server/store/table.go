package store

import "context"

// A Table holds the records of one type. Records that it returns are shared and must not be modified.
type Table[T any] struct {
	s *Store
}

// Get returns the record with id, or ErrNotFound.
func (t *Table[T]) Get(id string) (*T, error) { return nil, errStub }

// List returns all records, by the number in their id.
func (t *Table[T]) List() []*T { return nil }

// Len returns how many records there are.
func (t *Table[T]) Len() int { return 0 }

// Create stores a new record and returns it as stored. An empty id is filled with the next one. ErrExists if a record
// of the same id (or of the same natural key: a host's uuid, a container's uuid, a register's key) is there already.
func (t *Table[T]) Create(ctx context.Context, rec T) (*T, error) { return nil, errStub }

// Update calls change with a private copy of the record and stores the outcome; if someone else wrote in between, it
// does so again with the newer record. change may return ErrUnchanged to leave all as it is; any other error ends
// Update. A record that comes out equal is not written. Returns the record as stored.
func (t *Table[T]) Update(ctx context.Context, id string, change func(*T) error) (*T, error) {
	return nil, errStub
}

// Replace stores rec if the stored record still has rec's Revision, else ErrConflict.
func (t *Table[T]) Replace(ctx context.Context, rec T) (*T, error) { return nil, errStub }

// Delete removes the record. ErrNotFound if there is none; with a revision other than 0, ErrConflict if it changed.
func (t *Table[T]) Delete(ctx context.Context, id string, revision uint64) error { return errStub }
