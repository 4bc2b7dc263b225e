package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/droverhq/drover/events/wire"
)

func discard() *logrus.Logger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

// box is an outbox with its committer.
type box struct {
	*outbox
	counts *counters
	path   string
	done   sync.WaitGroup
}

func openBox(t *testing.T, path string) *box {
	t.Helper()
	b := &box{counts: &counters{}, path: path}
	b.outbox = newOutbox(discard(), b.counts)
	if err := b.open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	b.done.Go(func() { b.run(path, time.Hour) })
	return b
}

func (b *box) close() {
	b.stop()
	b.done.Wait()
}

func eventNo(n int) *wire.Event {
	return &wire.Event{ID: fmt.Sprintf("event-%d", n), Name: "x", ReplyTo: "reply.1", ResourceType: "t", ResourceID: fmt.Sprint(n % 7)}
}

// record puts the answer to event n on record and waits for that.
func (b *box) record(t *testing.T, n int, data string, ttl time.Duration) {
	t.Helper()
	ev := eventNo(n)
	reply, err := wire.NewReply(ev, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	settled := make(chan struct{})
	b.commit(answer(ev, reply, time.Now().Add(ttl), func() { close(settled) }))
	<-settled
}

// take sends what is next and has the server take it.
func (b *box) take(t *testing.T) *wire.Reply {
	t.Helper()
	f, err := b.next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := wire.DecodeReply(f.body)
	if err != nil {
		t.Fatal(err)
	}
	f.over()
	return r
}

func TestJournalKeepsWhatWasNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	for n := range 20 {
		b.record(t, n, fmt.Sprintf(`{"n":%d}`, n), time.Hour)
	}
	for range 5 {
		b.take(t)
	}
	b.close()
	b = openBox(t, path)
	defer func() { b.close() }()
	if n := b.unsent(); n != 15 {
		t.Fatalf("%d replies are left, want 15", n)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	want := map[string]bool{}
	for range 15 {
		r := b.take(t)
		want[string(r.Data)] = true
	}
	if len(want) != 15 || b.unsent() != 0 {
		t.Errorf("%d replies came, %d are left", len(want), b.unsent())
	}
	for n := range 20 { // all are known, and the bodies still there
		if v := b.lookup(eventNo(n)); v != repeated {
			t.Errorf("event %d: verdict %d", n, v)
		}
		if r := b.take(t); string(r.Data) != fmt.Sprintf(`{"n":%d}`, n) {
			t.Errorf("event %d: %s", n, r.Data)
		}
	}
	if v := b.lookup(eventNo(99)); v != unknown {
		t.Errorf("a new event: verdict %d", v)
	}
}

func TestJournalBudgets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	data := `"` + strings.Repeat("x", 64<<10) + `"`
	const n = 3 * maxKept / (64 << 10)
	for i := range n {
		b.record(t, i, data, time.Hour)
		b.take(t)
	}
	if v := b.lookup(eventNo(n - 1)); v != repeated {
		t.Errorf("the last event: verdict %d", v)
	}
	b.take(t)
	if v := b.lookup(eventNo(0)); v != buried {
		t.Errorf("the first event: verdict %d, want it answered and its reply gone", v)
	}
	b.close()
	if fi, err := os.Stat(path); err != nil || fi.Size() > 8*maxKept {
		t.Errorf("the file has %d bytes, %v", fi.Size(), err)
	}
	b = openBox(t, path)
	defer func() { b.close() }()
	if v := b.lookup(eventNo(0)); v != buried {
		t.Errorf("after a restart: verdict %d", v)
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	old := time.Now().Add(-maxTombstoneAge - time.Hour)
	for i := range maxTombstones + 10 {
		b.buryLocked(uint64(1000+i), uint64(i), time.Now())
	}
	b.evictLocked(time.Now())
	if len(b.answered) > maxTombstones || b.graves.len() > maxTombstones {
		t.Errorf("%d ids, %d graves", len(b.answered), b.graves.len())
	}
	b.graves.first().at = old
	before := b.graves.len()
	b.evictLocked(time.Now())
	if b.graves.len() != before-1 {
		t.Errorf("a grave of %s was kept", old)
	}
}

func TestPendingIsBounded(t *testing.T) {
	b := openBox(t, "")
	defer b.close()
	data := `"` + strings.Repeat("x", 1<<20) + `"`
	for i := range 40 {
		b.record(t, i, data, time.Hour)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes > maxMemoryBytes || b.counts.expired.Load() == 0 {
		t.Errorf("%d bytes are pending, %d expired", b.bytes, b.counts.expired.Load())
	}
}

func TestUntakenRepliesExpire(t *testing.T) {
	b := openBox(t, "")
	defer b.close()
	b.record(t, 1, "{}", -time.Second)
	b.record(t, 2, "{}", time.Hour)
	b.tick(time.Now(), time.Hour)
	if n := b.unsent(); n != 1 || b.counts.expired.Load() != 1 {
		t.Errorf("%d pending, %d expired", n, b.counts.expired.Load())
	}
	if r := b.take(t); r.EventID() != "event-2" {
		t.Errorf("got %s", r.EventID())
	}
}

// TestUnacknowledgedRepliesGoOutAgain covers both ways: the next connection, and time on the same one.
func TestUnacknowledgedRepliesGoOutAgain(t *testing.T) {
	b := openBox(t, filepath.Join(t.TempDir(), "journal.db"))
	defer b.close()
	for n := range 3 {
		b.record(t, n*7, fmt.Sprintf(`{"n":%d}`, n), time.Hour) // one resource
	}
	send := func() []string {
		var got []string
		for range 3 {
			f, err := b.next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r, _ := wire.DecodeReply(f.body)
			got = append(got, string(r.Data))
			f.sent(time.Now())
		}
		return got
	}
	want := []string{`{"n":0}`, `{"n":1}`, `{"n":2}`}
	if got := send(); !slices.Equal(got, want) {
		t.Fatalf("first: %v", got)
	}
	b.rebuild()
	if got := send(); !slices.Equal(got, want) {
		t.Errorf("next connection: %v", got)
	}
	b.tick(time.Now().Add(time.Minute), 15*time.Second)
	if got := send(); !slices.Equal(got, want) {
		t.Errorf("after a while: %v", got)
	}
	b.taken([]string{"event-0", "event-7", "event-14", "nonsense"})
	if b.unsent() != 0 || b.counts.taken.Load() != 3 || b.counts.resent.Load() != 6 {
		t.Errorf("%d pending, %d taken, %d resent", b.unsent(), b.counts.taken.Load(), b.counts.resent.Load())
	}
}

// failing is a store whose disk is full while broken says so.
type failing struct {
	store
	mu  sync.Mutex
	err error
}

func (f *failing) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *failing) apply(b *batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	return f.store.apply(b)
}

func TestAFullDiskCostsDurabilityAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	disk := &failing{store: b.store}
	b.mu.Lock()
	b.store = disk
	b.mu.Unlock()
	b.record(t, 1, `{"n":1}`, time.Hour)
	disk.set(fmt.Errorf("write %s: %w", path, syscall.ENOSPC))
	b.record(t, 2, `{"n":2}`, time.Hour)
	for _, want := range []string{`{"n":1}`, `{"n":2}`} {
		if r := b.take(t); string(r.Data) != want {
			t.Errorf("got %s, want %s", r.Data, want)
		}
	}
	if b.counts.journalFailures.Load() == 0 {
		t.Error("nothing was counted")
	}
	if v := b.lookup(eventNo(2)); v != buried {
		t.Errorf("an event answered meanwhile: verdict %d", v)
	}
	disk.set(nil)
	b.record(t, 3, `{"n":3}`, time.Hour) // and with it what is known of 1 and 2
	b.close()
	b = openBox(t, path)
	defer func() { b.close() }()
	if n := b.unsent(); n != 1 {
		t.Errorf("%d replies are pending after a restart, want the one that was not taken", n)
	}
	if v := b.lookup(eventNo(2)); v != buried {
		t.Errorf("after a restart: verdict %d", v)
	}
}

// TestTheDiskIsReallyFull fills a small file system.
func TestTheDiskIsReallyFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatalf("this test mounts a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	b := openBox(t, filepath.Join(dir, "journal.db"))
	data := `"` + strings.Repeat("x", 100<<10) + `"`
	for i := range 12 {
		b.record(t, i, data, time.Hour)
	}
	if b.counts.journalFailures.Load() == 0 {
		t.Fatal("the disk was not full")
	}
	for range 12 {
		if r := b.take(t); len(r.Data) != len(data) {
			t.Errorf("%d bytes", len(r.Data))
		}
	}
	b.close()
}

func TestADamagedJournalAtWorkIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	disk := &failing{store: b.store}
	b.mu.Lock()
	b.store = disk
	b.mu.Unlock()
	disk.set(fmt.Errorf("%w: page 7", errBroken))
	b.record(t, 1, `{"n":1}`, time.Hour)
	b.record(t, 2, `{"n":2}`, time.Hour)
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error(err)
	}
	if r := b.take(t); string(r.Data) != `{"n":1}` {
		t.Errorf("got %s", r.Data)
	}
	b.close()
	_ = disk.store.close()
	b = openBox(t, path)
	defer func() { b.close() }()
	if n := b.unsent(); n != 1 {
		t.Errorf("%d replies are pending, want the second", n)
	}
}

// TestDamagedFilesAreMovedAside damages a journal in many ways: opening it must neither fail nor take the process down.
func TestDamagedFilesAreMovedAside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal.db")
	b := openBox(t, path)
	for n := range 60 {
		b.record(t, n, `{"n":"`+strings.Repeat("x", 100*n)+`"}`, time.Hour)
		if n%2 == 0 {
			b.take(t)
		}
	}
	b.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	log, hook := logtest.NewNullLogger()
	try := func(what string, content []byte) (moved bool) {
		t.Helper()
		hook.Reset()
		p := filepath.Join(dir, "damaged.db")
		_ = os.Remove(p + ".damaged")
		if err := os.WriteFile(p, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, _, err := openStore(t.Context(), p, log)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer s.close()
		if _, ok := s.(*boltStore); !ok {
			t.Errorf("%s: it ended up in memory", what)
		}
		if err := s.apply(&batch{put: []*record{newRecord(999, "k", &wire.Reply{PreviousIDs: []string{"e"}}, time.Now())}}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(p + ".damaged"); err == nil {
			moved = true
			if len(hook.AllEntries()) != 1 || !strings.Contains(hook.LastEntry().Message, "damaged") {
				t.Errorf("%s: logged %v", what, hook.AllEntries())
			}
		}
		return moved
	}
	if try("whole", whole) {
		t.Error("a whole file was moved aside")
	}
	for what, content := range map[string][]byte{
		"garbage": []byte(strings.Repeat("garbage ", 1000)), "a few bytes": []byte("x"), "zeros": make([]byte, len(whole)),
		"half": whole[:len(whole)/2], "one page": whole[:4096], "three pages and a bit": whole[:3*4096+17],
	} {
		if !try(what, content) {
			t.Errorf("%s: it was not moved aside", what)
		}
	}
	if try("empty", nil) {
		t.Error("an empty file is a new one")
	}
	r := rand.New(rand.NewPCG(1, 2))
	moved := 0
	for i := range 150 {
		content := slices.Clone(whole)
		switch i % 3 {
		case 0: // a page of zeros
			page := r.IntN(len(content) / 4096)
			clear(content[page*4096 : (page+1)*4096])
		case 1: // a page of noise
			page := r.IntN(len(content) / 4096)
			for j := range 4096 {
				content[page*4096+j] = byte(r.Uint32())
			}
		case 2: // some bytes
			for range 20 {
				content[r.IntN(len(content))] ^= byte(1 + r.IntN(255))
			}
		}
		if try(fmt.Sprintf("damage %d", i), content) {
			moved++
		}
	}
	if moved == 0 {
		t.Error("no damage was found")
	}
	t.Logf("%d of 150 damages were found", moved)
}

func TestTwoAgentsDoNotShareAJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	defer b.close()
	ended, cancel := context.WithCancel(t.Context())
	cancel() // do not wait for the first one to go
	if _, _, _, err := openStore(ended, path, discard()); !errors.Is(err, ErrJournalInUse) {
		t.Errorf("got %v", err)
	}
}

func TestAnUnusableFolderMeansMemory(t *testing.T) {
	log, hook := logtest.NewNullLogger()
	s, _, _, err := openStore(t.Context(), filepath.Join(t.TempDir(), "missing", "journal.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.(*memoryStore); !ok || len(hook.AllEntries()) != 1 {
		t.Errorf("%T, logged %v", s, hook.AllEntries())
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	deadline := time.UnixMilli(1700000000123)
	r := newRecord(7, "t:1", &wire.Reply{PreviousIDs: []string{"e1"}, Transitioning: "error", TransitioningMessage: "no"}, deadline)
	got, err := decodeRecord(7, r.text)
	if err != nil || got.id != "e1" || got.key != "t:1" || !got.deadline.Equal(deadline) || !got.failed || got.body != r.body {
		t.Errorf("%v, %+v", err, got)
	}
	for i := range r.text {
		bad := slices.Clone(r.text)
		bad[i] ^= 0x10
		if _, err := decodeRecord(7, bad); err == nil {
			t.Errorf("a wrong byte %d went unnoticed", i)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(newRecord(7, "t:1", &wire.Reply{PreviousIDs: []string{"e1"}}, time.UnixMilli(1)).text)
	f.Add([]byte{recordFormat})
	f.Add((&tombstone{seq: 1, id: "e", at: time.UnixMilli(1)}).encode())
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := decodeRecord(1, text); err == nil && r.body > len(text) {
			t.Fatalf("the body begins at %d of %d", r.body, len(text))
		}
		_, _ = decodeTombstone(1, text)
	})
}

// FuzzFrame gives the client whatever a server may send.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		`{"id":"1","name":"echo","replyTo":"reply.1","data":{}}`, `{"name":"drover.ack","data":{"ids":["1"]}}`, `{"name":"logout"}`,
		`{"name":"drover.goaway","data":{"retryAfterMillis":-9223372036854775808}}`, `{"name":"ping"}`, `{"id":5}`, ``, `{"id":"1","replyTo":"reply.1"}`,
	} {
		f.Add([]byte(s))
	}
	router := NewRouter(RouterConfig{})
	router.Handle("echo", HandlerFunc(func(_ context.Context, ev *wire.Event, _ Progress) (any, error) { return ev.Data, nil }))
	f.Fuzz(func(t *testing.T, frame []byte) {
		c, err := New(Config{URL: "http://127.0.0.1/v1", Router: router})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.outbox.open(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		var committer sync.WaitGroup
		committer.Go(func() { c.outbox.run("", time.Hour) })
		s := &session{drover: true, signal: make(chan struct{}, 1), dead: make(chan struct{})}
		c.frame(s, frame)
		c.frame(s, frame)
		c.dispatch.drain(t.Context(), time.Second)
		c.outbox.stop()
		committer.Wait()
	})
}
