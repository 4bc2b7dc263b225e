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

// box is an outbox with its janitor.
type box struct {
	*outbox
	counts *counters
}

func openBox(t *testing.T, path string) *box {
	t.Helper()
	b := &box{counts: &counters{}}
	b.outbox = newOutbox(discard(), b.counts)
	if err := b.open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *box) close() { b.complain(b.journal.close()) }

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
	b.answer(ev, reply, time.Now().Add(ttl))
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
	const n = 5 * segmentSize / (64 << 10)
	for i := range n {
		b.record(t, i, data, time.Hour)
		if i != 1 { // one is not taken for long
			b.take(t)
		} else if f, err := b.next(t.Context()); err != nil {
			t.Fatal(err)
		} else {
			f.sent(time.Now())
		}
		if i%16 == 0 {
			b.complain(b.journal.sync())
			b.complain(b.retire())
		}
	}
	if v := b.lookup(eventNo(n - 1)); v != repeated {
		t.Errorf("the last event: verdict %d", v)
	}
	b.take(t)
	if v := b.lookup(eventNo(0)); v != buried {
		t.Errorf("the first event: verdict %d, want it answered and its reply gone", v)
	}
	if got := b.counts.journalFailures.Load(); got != 0 {
		t.Errorf("%d failures", got)
	}
	b.close()
	var size int64
	files, _ := filepath.Glob(path + "*")
	for _, f := range files {
		if fi, err := os.Stat(f); err == nil {
			size += fi.Size()
		}
	}
	if size > 4*segmentSize {
		t.Errorf("%d bytes in %v", size, files)
	}
	b = openBox(t, path)
	defer func() { b.close() }()
	for _, i := range []int{0, 2, n / 2} {
		if v := b.lookup(eventNo(i)); v != buried {
			t.Errorf("event %d after a restart: verdict %d", i, v)
		}
	}
	if r := b.take(t); r.EventID() != "event-1" || len(r.Data) != len(data) || b.unsent() != 0 {
		t.Errorf("the one that was not taken: %s, %d bytes, %d left", r.EventID(), len(r.Data), b.unsent())
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range maxTombstones + 10 {
		b.buryLocked(uint64(1<<40+i), uint64(i), time.Now())
	}
	b.evictLocked(time.Now())
	if len(b.answered) > maxTombstones || b.graves.len() > maxTombstones {
		t.Errorf("%d ids, %d graves", len(b.answered), b.graves.len())
	}
	b.graves.first().at = time.Now().Add(-maxTombstoneAge - time.Hour)
	before := b.graves.len()
	b.evictLocked(time.Now())
	if b.graves.len() != before-1 {
		t.Error("an old grave was kept")
	}
}

// TestTheJanitorWritesWhatWasNoted lets it work by itself.
func TestTheJanitorWritesWhatWasNoted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	var janitor sync.WaitGroup
	janitor.Go(func() { b.run(time.Hour) })
	b.record(t, 1, `{}`, time.Hour)
	b.take(t)
	stones, synced := 0, false
	for deadline := time.Now().Add(time.Minute); stones == 0 || !synced; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d tombstones in the log, synced %v", stones, synced)
		}
		s, err := openSegment(path, 1)
		if err != nil {
			t.Fatal(err)
		}
		stones = 0
		if _, err := s.replay(s.size, func(_ int64, frame []byte) error {
			if got, err := decodeTombstone(frame); err == nil && got.id == "event-1" {
				stones++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		_ = s.file.Close()
		b.journal.mu.RLock()
		synced = !b.journal.unsynced
		b.journal.mu.RUnlock()
	}
	b.stop()
	janitor.Wait()
}

// TestRepliesMoveWithTheirSegments retires segments whose replies nobody took.
func TestRepliesMoveWithTheirSegments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	const n, size = 60, 200 << 10
	for i := range n {
		b.record(t, i, fmt.Sprintf(`"%d%s"`, i, strings.Repeat("x", size)), time.Hour)
	}
	b.complain(b.retire())
	b.mu.Lock()
	inBolt := 0
	for e := b.oldest; e != nil; e = e.newer {
		if e.place.inBolt() {
			inBolt++
		}
	}
	b.mu.Unlock()
	if inBolt < n/2 || len(b.journal.segments) > maxSegments {
		t.Errorf("%d of %d replies moved, %d segments", inBolt, n, len(b.journal.segments))
	}
	for i := range n / 2 {
		if r := b.take(t); !strings.HasPrefix(string(r.Data), fmt.Sprintf(`"%dx`, i)) {
			t.Errorf("reply %d is %.10s", i, r.Data)
		}
	}
	b.close()
	b = openBox(t, path)
	if left := b.unsent(); left != n/2 {
		t.Errorf("%d are left after a restart", left)
	}
	for b.unsent() > 0 {
		if r := b.take(t); len(r.Data) < size {
			t.Errorf("%d bytes", len(r.Data))
		}
	}
	for i := range 200 { // what was taken leaves the file with the next segment
		b.record(t, n+i, fmt.Sprintf(`"%s"`, strings.Repeat("x", 100<<10)), time.Hour)
		b.take(t)
		b.complain(b.retire())
	}
	records, _, err := b.journal.bolt.load()
	if err != nil || len(records) != 0 {
		t.Errorf("%v; %d replies are still in the bbolt file", err, len(records))
	}
	if got := b.counts.journalFailures.Load(); got != 0 {
		t.Errorf("%d failures", got)
	}
	b.close()
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

// breakDisk makes writes to the log fail, or work again.
func (b *box) breakDisk(err error) {
	b.journal.mu.Lock()
	defer b.journal.mu.Unlock()
	b.journal.write = (*os.File).WriteAt
	if err != nil {
		b.journal.write = func(f *os.File, p []byte, off int64) (int, error) {
			n, _ := f.WriteAt(p[:len(p)/2], off) // as much as there was room for
			return n, err
		}
	}
}

func TestAFullDiskCostsDurabilityAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	b.record(t, 1, `{"n":1}`, time.Hour)
	b.breakDisk(fmt.Errorf("write %s: %w", path, syscall.ENOSPC))
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
	b.complain(b.journal.flush())
	b.breakDisk(nil)
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

// TestDamagedFilesAreMovedAside damages a journal in many ways: opening it must neither fail nor take the process down,
// nor lose more than it must.
func TestDamagedFilesAreMovedAside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal.db")
	b := openBox(t, path)
	for n := range 60 {
		b.record(t, n, `{"n":"`+strings.Repeat("x", 3000*n)+`"}`, time.Hour)
		if n%2 == 0 {
			b.take(t)
		}
		b.complain(b.retire())
	}
	b.close()
	files, _ := filepath.Glob(path + "*")
	if len(files) < 3 {
		t.Fatalf("the journal is made of %v", files)
	}
	whole := map[string][]byte{}
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		whole[filepath.Base(f)] = content
	}
	tries := 0
	try := func(what, file string, content []byte) (said bool) {
		t.Helper()
		tries++
		dir := filepath.Join(t.TempDir(), fmt.Sprint(tries))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, good := range whole {
			if name == file {
				good = content
			}
			if err := os.WriteFile(filepath.Join(dir, name), good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		log, hook := logtest.NewNullLogger()
		j, replies, done, err := openJournal(t.Context(), filepath.Join(dir, "journal.db"), log)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer j.close()
		if !j.disk {
			t.Errorf("%s: it ended up in memory", what)
		}
		r := newRecord(999, "k", &wire.Reply{PreviousIDs: []string{"e"}}, time.Now())
		if p, err := j.put(r.frame); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if got, err := j.get(p, 999, r.size); err != nil || !slices.Equal(got, r.frame) {
			t.Errorf("%s: read back: %v", what, err)
		}
		for _, s := range replies {
			if s.place.segment != nil {
				if _, err := j.get(s.place, s.seq, s.size); err != nil {
					t.Errorf("%s: reply %d: %v", what, s.seq, err)
				}
			}
		}
		said = len(hook.AllEntries()) > 0
		moved, _ := filepath.Glob(filepath.Join(dir, "*.damaged"))
		if said != (len(moved) > 0) || said && !strings.Contains(hook.LastEntry().Message, "damaged") {
			t.Errorf("%s: moved %v, logged %v", what, moved, hook.AllEntries())
		}
		if !said && len(replies)+len(done) == 0 {
			t.Errorf("%s: everything is lost, and nothing was said", what)
		}
		return said
	}
	if try("whole", "", nil) {
		t.Error("a whole journal was found damaged")
	}
	db := whole["journal.db"]
	for what, content := range map[string][]byte{
		"garbage": []byte(strings.Repeat("garbage ", 1000)), "a few bytes": []byte("x"), "zeros": make([]byte, len(db)),
		"one page": db[:4096], "three pages and a bit": db[:3*4096+17],
	} {
		if !try(what, "journal.db", content) {
			t.Errorf("%s: it was not found", what)
		}
	}
	if try("empty", "journal.db", nil) {
		t.Error("an empty file is a new one")
	}
	r := rand.New(rand.NewPCG(1, 2))
	found := 0
	for i := range 150 {
		file := "journal.db"
		if i%2 == 1 {
			file = filepath.Base(files[1+r.IntN(len(files)-1)])
		}
		content := slices.Clone(whole[file])
		if len(content) < 4096 {
			continue
		}
		switch i % 5 {
		case 0: // a page of zeros
			page := r.IntN(len(content) / 4096)
			clear(content[page*4096 : (page+1)*4096])
		case 1: // a page of noise
			page := r.IntN(len(content) / 4096)
			for j := range 4096 {
				content[page*4096+j] = byte(r.Uint32())
			}
		case 2, 3: // some bytes
			for range 20 {
				content[r.IntN(len(content))] ^= byte(1 + r.IntN(255))
			}
		case 4:
			content = content[:r.IntN(len(content))]
		}
		if try(fmt.Sprintf("damage %d of %s", i, file), file, content) {
			found++
		}
	}
	if found < 50 {
		t.Errorf("%d of 150 damages were found", found)
	}
	t.Logf("%d of 150 damages were found", found)
}

// TestATornEndCostsTheEndAlone is what a loss of power leaves.
func TestATornEndCostsTheEndAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	for n := range 10 {
		b.record(t, n, fmt.Sprintf(`{"n":%d}`, n), time.Hour)
	}
	b.close()
	log := segmentPath(path, 1)
	fi, err := os.Stat(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(log, fi.Size()-3); err != nil {
		t.Fatal(err)
	}
	b = openBox(t, path)
	if n := b.unsent(); n != 9 {
		t.Errorf("%d replies are left, want 9", n)
	}
	b.record(t, 20, `{"n":20}`, time.Hour)
	b.close()
	b = openBox(t, path)
	defer func() { b.close() }()
	if n := b.unsent(); n != 10 {
		t.Errorf("%d replies are left, want 10", n)
	}
}

func TestTwoAgentsDoNotShareAJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	b := openBox(t, path)
	defer b.close()
	ended, cancel := context.WithCancel(t.Context())
	cancel() // do not wait for the first one to go
	if _, _, _, err := openJournal(ended, path, discard()); !errors.Is(err, ErrJournalInUse) {
		t.Errorf("got %v", err)
	}
}

// TestAHandlerMayOutliveItsClient answers when the journal is closed already.
func TestAHandlerMayOutliveItsClient(t *testing.T) {
	b := openBox(t, filepath.Join(t.TempDir(), "journal.db"))
	b.close()
	b.record(t, 1, `{"n":1}`, time.Hour)
	if r := b.take(t); string(r.Data) != `{"n":1}` || b.counts.journalFailures.Load() == 0 {
		t.Errorf("got %s, %d failures", r.Data, b.counts.journalFailures.Load())
	}
}

func TestAnUnusableFolderMeansMemory(t *testing.T) {
	log, hook := logtest.NewNullLogger()
	j, _, _, err := openJournal(t.Context(), filepath.Join(t.TempDir(), "missing", "journal.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	if j.disk || len(hook.AllEntries()) != 1 {
		t.Errorf("on disk: %v, logged %v", j.disk, hook.AllEntries())
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	deadline := time.UnixMilli(1700000000123)
	r := newRecord(7, "t:1", &wire.Reply{PreviousIDs: []string{"e1"}, Transitioning: "error", TransitioningMessage: "no"}, deadline)
	got, err := decodeRecord(r.frame)
	if err != nil || got.seq != 7 || got.id != "e1" || got.key != "t:1" || !got.deadline.Equal(deadline) || !got.failed || got.body != r.body || got.size != r.size {
		t.Errorf("%v, %+v", err, got)
	}
	stone := tombstone{seq: 9, id: "e2", at: deadline, failed: true}
	frame := stone.appendFrame(nil)
	if got, err := decodeTombstone(frame); err != nil || got != stone {
		t.Errorf("%v, %+v", err, got)
	}
	for i := range r.frame {
		bad := slices.Clone(r.frame)
		bad[i] ^= 0x10
		if _, err := decodeRecord(bad); err == nil {
			t.Errorf("a wrong byte %d went unnoticed", i)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(newRecord(7, "t:1", &wire.Reply{PreviousIDs: []string{"e1"}}, time.UnixMilli(1)).frame)
	f.Add((&tombstone{seq: 1, id: "e", at: time.UnixMilli(1)}).appendFrame(nil))
	f.Add([]byte{0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		sealed := slices.Clone(b)
		if len(sealed) >= frameHeader {
			endFrame(sealed) // so that more than the checksum is tried
		}
		for _, frame := range [][]byte{b, sealed} {
			if r, err := decodeRecord(frame); err == nil && r.body > len(frame) {
				t.Fatalf("the body begins at %d of %d", r.body, len(frame))
			}
			_, _ = decodeTombstone(frame)
		}
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(segmentPath(path, 1), b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, _, _, err := openJournal(t.Context(), path, discard())
		if err != nil || !j.disk {
			t.Fatalf("%v, on disk: %v", err, j.disk)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
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
		var janitor sync.WaitGroup
		janitor.Go(func() { c.outbox.run(time.Hour) })
		s := &session{drover: true, signal: make(chan struct{}, 1), dead: make(chan struct{})}
		c.frame(s, frame)
		c.frame(s, frame)
		c.dispatch.drain(t.Context(), time.Second)
		c.outbox.stop()
		janitor.Wait()
	})
}
