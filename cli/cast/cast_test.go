package cast

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that the test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func TestRecordingIsAsciicast(t *testing.T) {
	c := &clock{at: time.Unix(1000, 0)}
	var file bytes.Buffer
	r, err := NewRecorder(&file, Header{Width: 80, Height: 24, Timestamp: 1000, Command: "sh", Env: map[string]string{"TERM": "xterm"}}, c.now)
	if err != nil {
		t.Fatal(err)
	}
	c.at = c.at.Add(1500 * time.Millisecond)
	r.Output([]byte("$ "))
	r.Input([]byte("ls\r"))
	r.Resize(120, 40)
	c.at = c.at.Add(time.Second)
	r.Output([]byte("<a> \x1b[1m\u2028\"\\\n"))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	want := `{"version":2,"width":80,"height":24,"timestamp":1000,"command":"sh","env":{"TERM":"xterm"}}
[1.500000, "o", "$ "]
[1.500000, "i", "ls\r"]
[1.500000, "r", "120x40"]
[2.500000, "o", "<a> \u001b[1m\u2028\"\\\n"]
`
	if file.String() != want {
		t.Errorf("recorded\n%s\nwant\n%s", file.String(), want)
	}
	var out bytes.Buffer
	var head Header
	if err := Play(t.Context(), &file, &out, Options{AtOnce: true, Begin: func(h *Header) { head = *h }}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "$ <a> \x1b[1m\u2028\"\\\n" || head.Width != 80 || head.Command != "sh" {
		t.Errorf("played %q under %+v", out.String(), head)
	}
}

// TestCutCharacters: a character that comes in pieces is recorded whole, and what is none does not break the file.
func TestCutCharacters(t *testing.T) {
	text := strings.Repeat("aé漢😀\u0301", 200)
	var file bytes.Buffer
	r, err := NewRecorder(&file, Header{Width: 1, Height: 1}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for rest := []byte(text); len(rest) > 0; {
		n := min(1+rand.IntN(5), len(rest))
		r.Output(rest[:n])
		rest = rest[n:]
	}
	r.Output([]byte("\xff\xfe|\xe6\xbc"))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if !utf8.Valid(file.Bytes()) {
		t.Error("the file is no UTF-8")
	}
	var out bytes.Buffer
	if err := Play(t.Context(), &file, &out, Options{AtOnce: true}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), text) || strings.Count(out.String(), "\uFFFD") < 3 {
		t.Errorf("played %q", out.String()[max(0, out.Len()-40):])
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestFullDiskIsTold(t *testing.T) {
	r, err := NewRecorder(&failing{after: 2}, Header{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		r.Output([]byte("x"))
	}
	if err := r.Close(); err == nil || err.Error() != "disk full" {
		t.Errorf("got %v", err)
	}
}

const short = `{"version":2,"width":80,"height":24%s}
[0.0, "o", "a"]
[3600, "o", "b"]
[3600.01, "i", "no"]

[3599, "o", "c"]
`

func TestPace(t *testing.T) {
	for name, c := range map[string]struct {
		head string
		o    Options
	}{
		"limit of the viewer":    {"", Options{IdleLimit: 30 * time.Millisecond}},
		"limit of the recording": {`,"idle_time_limit":0.03`, Options{}},
		"speed":                  {"", Options{Speed: 120_000}},
	} {
		var out bytes.Buffer
		begun := time.Now()
		if err := Play(t.Context(), strings.NewReader(strings.Replace(short, "%s", c.head, 1)), &out, c.o); err != nil || out.String() != "abc" {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
		if took := time.Since(begun); took < 29*time.Millisecond {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

func TestControls(t *testing.T) {
	controls := make(chan int)
	written := make(chan string)
	done := make(chan error)
	go func() {
		done <- Play(t.Context(), strings.NewReader(strings.Replace(short, "%s", "", 1)), toChannel(written), Options{Controls: controls})
	}()
	if s := <-written; s != "a" {
		t.Fatalf("first %q", s)
	}
	controls <- Step // means nothing while it plays
	controls <- Pause
	controls <- Step
	if s := <-written; s != "b" {
		t.Fatalf("step brought %q", s)
	}
	controls <- Quit
	if err := <-done; !errors.Is(err, ErrQuit) {
		t.Errorf("quit: %v", err)
	}
}

type toChannel chan string

func (c toChannel) Write(p []byte) (int, error) {
	c <- string(p)
	return len(p), nil
}

func TestWhatIsNoRecording(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "the recording is empty",
		"\x00\x01":                     "this is no recording",
		`{"version":1,"stdout":[]}`:    "asciicast v1",
		`{"version":3,"term":{}}`:      "asciicast v3",
		`{"version":2}` + "\n[1]":      "line 2 of the recording",
		`{"version":2}` + "\n[1,2,3]":  "line 2 of the recording",
		`{"version":"2"}`:              "this is no recording",
		strings.Repeat("x", maxLine+1): "more than",
		`{"version":2}` + "\n[1e999, \"o\", \"\"]": "line 2",
	} {
		err := Play(t.Context(), strings.NewReader(in), &bytes.Buffer{}, Options{AtOnce: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", in, err, want)
		}
	}
}

func FuzzPlay(f *testing.F) {
	f.Add([]byte(strings.Replace(short, "%s", "", 1)))
	f.Add([]byte(`{"version":2,"idle_time_limit":-1}` + "\n" + `[-5, "o", "x"]` + "\n" + `[1e300, "o", "y"]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Play(t.Context(), bytes.NewReader(b), &bytes.Buffer{}, Options{AtOnce: true})
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte("a\xe6"), []byte("\xbc\xa2b"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var file bytes.Buffer
		r, err := NewRecorder(&file, Header{}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		r.Output(a)
		r.Output(b)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Play(t.Context(), &file, &out, Options{AtOnce: true}); err != nil {
			t.Fatal(err)
		}
		if want := string([]rune(string(a) + string(b))); out.String() != want {
			t.Errorf("%q became %q", want, out.String())
		}
	})
}
