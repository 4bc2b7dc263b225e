package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// maxTries bounds how often Update starts again because someone else wrote first. Somebody's write succeeds in each
// round, so only a record that many replicas write at once comes near it.
const maxTries = 64

// A Table holds the records of one type. Records that it returns are shared and must not be modified.
type Table[T any] struct {
	s    *Store
	typ  string
	meta func(*T) *Meta
	key  func(*T) string // natural key, unique; nil: the id

	indexes []func(*T) string // "" leaves a record out

	mu    sync.RWMutex // guards what follows
	rows  map[string]*T
	ids   map[string]string // id -> key
	index []map[string][]*T // one for each of indexes
	gone  map[string]uint64 // deleted here, at which revision, until the watch has seen it too
}

func newTable[T any](s *Store, typ string, meta func(*T) *Meta, key func(*T) string, indexes ...func(*T) string) *Table[T] {
	t := &Table[T]{
		s: s, typ: typ, meta: meta, key: key, indexes: indexes,
		rows: make(map[string]*T), ids: make(map[string]string), gone: make(map[string]uint64),
	}
	for range indexes {
		t.index = append(t.index, make(map[string][]*T))
	}
	s.tables[typ] = t
	return t
}

// keyOf returns the key of rec in the bucket, without the type.
func (t *Table[T]) keyOf(rec *T) string {
	if t.key == nil {
		return t.meta(rec).ID
	}
	return t.key(rec)
}

// Get returns the record with id, or ErrNotFound.
func (t *Table[T]) Get(id string) (*T, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if key, ok := t.ids[id]; ok {
		return t.rows[key], nil
	}
	return nil, fmt.Errorf("%s %q: %w", t.typ, id, ErrNotFound)
}

// List returns all records, by the number in their id.
func (t *Table[T]) List() []*T {
	t.mu.RLock()
	out := make([]*T, 0, len(t.rows))
	for _, rec := range t.rows {
		out = append(out, rec)
	}
	t.mu.RUnlock()
	t.sort(out)
	return out
}

// Len returns how many records there are.
func (t *Table[T]) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.rows)
}

// find returns the records of one index value, by id.
func (t *Table[T]) find(index int, value string) []*T {
	if value == "" {
		return nil
	}
	t.mu.RLock()
	out := slices.Clone(t.index[index][value])
	t.mu.RUnlock()
	t.sort(out)
	return out
}

func (t *Table[T]) findOne(index int, value string) (*T, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if found := t.index[index][value]; value != "" && len(found) > 0 {
		return found[0], nil
	}
	return nil, fmt.Errorf("%s: %w", t.typ, ErrNotFound)
}

func (t *Table[T]) sort(recs []*T) {
	slices.SortFunc(recs, func(a, b *T) int {
		x, y := t.meta(a).ID, t.meta(b).ID
		return cmp.Or(cmp.Compare(idNumber(x), idNumber(y)), strings.Compare(x, y))
	})
}

// idNumber returns the number at the end of an id such as "1ihm7", or 0.
func idNumber(id string) int64 {
	i := len(id)
	for i > 0 && id[i-1] >= '0' && id[i-1] <= '9' {
		i--
	}
	n, _ := strconv.ParseInt(id[i:], 10, 64)
	return n
}

// known returns the record with a natural key from memory.
func (t *Table[T]) known(key string) (*T, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if rec := t.rows[key]; rec != nil {
		return rec, nil
	}
	return nil, fmt.Errorf("%s: %w", t.typ, ErrNotFound)
}

// byKey returns the record with a natural key. Where other replicas write too, it asks the cluster for one that is
// not known yet; fresh asks even if it is known.
func (t *Table[T]) byKey(ctx context.Context, key string, fresh bool) (*T, error) {
	rec, err := t.known(key)
	if t.s.Clustered() && (err != nil || fresh) {
		return t.refresh(ctx, key)
	}
	return rec, err
}

// refresh reads one record from JetStream into memory.
func (t *Table[T]) refresh(ctx context.Context, key string) (*T, error) {
	entry, err := t.s.kv.Get(ctx, t.typ+"."+key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, fmt.Errorf("%s: %w", t.typ, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.typ, err)
	}
	return t.load(key, entry.Value(), entry.Revision())
}

// Create stores a new record and returns it as stored. An empty id is filled with the next one. ErrExists if a record
// of the same id (or of the same natural key: a host's uuid, a container's uuid, a register's key) is there already.
func (t *Table[T]) Create(ctx context.Context, rec T) (*T, error) {
	m := t.meta(&rec)
	if m.ID == "" {
		id, _, err := t.s.NextID(ctx, t.typ)
		if err != nil {
			return nil, err
		}
		m.ID = id
	}
	if _, err := t.Get(m.ID); err == nil {
		return nil, fmt.Errorf("%s %q: %w", t.typ, m.ID, ErrExists)
	}
	m.Created = time.Now().UTC()
	m.Updated = m.Created
	key := t.keyOf(&rec)
	data, err := json.Marshal(&rec)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", t.typ, err)
	}
	m.Revision, err = t.s.kv.Create(ctx, t.typ+"."+key, data)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return nil, fmt.Errorf("%s: %w", t.typ, ErrExists)
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", t.typ, err)
	}
	return t.apply(key, &rec), nil
}

// Update calls change with a private copy of the record and stores the outcome; if someone else wrote in between, it
// does so again with the newer record. change may return ErrUnchanged to leave all as it is; any other error ends
// Update. A record that comes out equal is not written. Returns the record as stored.
func (t *Table[T]) Update(ctx context.Context, id string, change func(*T) error) (*T, error) {
	old, err := t.Get(id)
	if err != nil {
		return nil, err
	}
	key := t.keyOf(old)
	for range maxTries {
		before, err := json.Marshal(old)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", t.typ, err)
		}
		rec := new(T)
		if err := json.Unmarshal(before, rec); err != nil {
			return nil, fmt.Errorf("copy %s: %w", t.typ, err)
		}
		if err := change(rec); errors.Is(err, ErrUnchanged) {
			return old, nil
		} else if err != nil {
			return nil, err
		}
		*t.meta(rec) = *t.meta(old)
		after, err := json.Marshal(rec)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", t.typ, err)
		}
		if bytes.Equal(before, after) {
			return old, nil
		}
		stored, err := t.write(ctx, key, rec)
		if err == nil || !errors.Is(err, ErrConflict) {
			return stored, err
		}
		if old, err = t.refresh(ctx, key); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("update %s %s: %w", t.typ, id, ErrConflict)
}

// Replace stores rec if the stored record still has rec's Revision, else ErrConflict.
func (t *Table[T]) Replace(ctx context.Context, rec T) (*T, error) {
	old, err := t.Get(t.meta(&rec).ID)
	if err != nil {
		return nil, err
	}
	t.meta(&rec).Created = t.meta(old).Created
	return t.write(ctx, t.keyOf(old), &rec)
}

// write stores rec over the revision that it carries.
func (t *Table[T]) write(ctx context.Context, key string, rec *T) (*T, error) {
	m := t.meta(rec)
	if k := t.keyOf(rec); k != key {
		return nil, fmt.Errorf("%s %s: its key may not change", t.typ, m.ID)
	}
	m.Updated = time.Now().UTC()
	data, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", t.typ, err)
	}
	rev, err := t.s.kv.Update(ctx, t.typ+"."+key, data, m.Revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return nil, fmt.Errorf("%s %s: %w", t.typ, m.ID, ErrConflict)
	}
	if err != nil {
		return nil, fmt.Errorf("write %s %s: %w", t.typ, m.ID, err)
	}
	m.Revision = rev
	return t.apply(key, rec), nil
}

// Delete removes the record. ErrNotFound if there is none; with a revision other than 0, ErrConflict if it changed.
func (t *Table[T]) Delete(ctx context.Context, id string, revision uint64) error {
	old, err := t.Get(id)
	if err != nil {
		return err
	}
	key := t.keyOf(old)
	for range maxTries {
		rev := t.meta(old).Revision
		if revision != 0 && rev != revision {
			return fmt.Errorf("%s %s: %w", t.typ, id, ErrConflict)
		}
		// The marker tells the other replicas, and goes away by itself after an hour.
		err := t.s.kv.Purge(ctx, t.typ+"."+key, jetstream.LastRevision(rev), jetstream.PurgeTTL(markerTTL))
		if err == nil {
			t.drop(key, rev, false)
			return nil
		}
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return fmt.Errorf("delete %s %s: %w", t.typ, id, err)
		}
		if old, err = t.refresh(ctx, key); err != nil {
			return err
		}
	}
	return fmt.Errorf("delete %s %s: %w", t.typ, id, ErrConflict)
}

// load decodes a stored value and applies it.
func (t *Table[T]) load(key string, value []byte, rev uint64) (*T, error) {
	rec := new(T)
	if err := json.Unmarshal(value, rec); err != nil {
		return nil, fmt.Errorf("decode %s %s: %w", t.typ, key, err)
	}
	t.meta(rec).Revision = rev
	return t.apply(key, rec), nil
}

// apply puts rec into memory unless something newer is there, and returns what is there then.
func (t *Table[T]) apply(key string, rec *T) *T {
	m := t.meta(rec)
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.rows[key]
	if old != nil && t.meta(old).Revision >= m.Revision {
		return old
	}
	if m.Revision <= t.gone[key] {
		return rec
	}
	t.rows[key] = rec
	t.ids[m.ID] = key
	for i, value := range t.indexes {
		t.unindex(i, old)
		if v := value(rec); v != "" {
			t.index[i][v] = append(t.index[i][v], rec)
		}
	}
	t.s.feeds.publish(Change{Type: t.typ, ID: m.ID, Revision: m.Revision, Record: rec})
	return rec
}

// unindex takes rec out of one index. The caller holds mu.
func (t *Table[T]) unindex(i int, rec *T) {
	if rec == nil {
		return
	}
	v := t.indexes[i](rec)
	if v == "" {
		return
	}
	// A new slice, because readers clone the old one without waiting for its elements.
	rest := slices.DeleteFunc(slices.Clone(t.index[i][v]), func(r *T) bool { return r == rec })
	if len(rest) == 0 {
		delete(t.index[i], v)
		return
	}
	t.index[i][v] = rest
}

// drop takes the record of key out of memory. rev is the revision that was deleted or, if seen by the watch, the one
// of the delete marker.
func (t *Table[T]) drop(key string, rev uint64, seen bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seen {
		delete(t.gone, key)
	} else {
		t.gone[key] = rev
	}
	old := t.rows[key]
	if old == nil || t.meta(old).Revision > rev {
		return
	}
	delete(t.rows, key)
	id := t.meta(old).ID
	delete(t.ids, id)
	for i := range t.indexes {
		t.unindex(i, old)
	}
	t.s.feeds.publish(Change{Type: t.typ, ID: id, Revision: rev, Deleted: true})
}

// watched takes in one entry of the watch.
func (t *Table[T]) watched(e jetstream.KeyValueEntry, key string) error {
	if e.Operation() != jetstream.KeyValuePut {
		t.drop(key, e.Revision(), true)
		return nil
	}
	_, err := t.load(key, e.Value(), e.Revision())
	return err
}
