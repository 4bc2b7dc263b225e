package containerlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// want is what dockerd's reader makes of a line of a json-file log: encoding/json into a struct of this form.
type want struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// record makes a line as dockerd writes it.
func record(log, stream string, at time.Time) string {
	b, err := json.Marshal(log)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"log":%s,"stream":%q,"time":%q}`+"\n", b, stream, at.UTC().Format(time.RFC3339Nano))
}

type got struct {
	log    string
	stderr bool
	nano   int64
	stamp  string
}

func scanAll(t testing.TB, src io.Reader) ([]got, int64) {
	t.Helper()
	var s scanner
	s.reset(&jsonLines{}, src, fileID{}, 0)
	var all []got
	var e Entry
	for {
		err := s.next(&e)
		if err == io.EOF {
			return all, s.skipped
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got{string(e.Line), e.Stderr, e.UnixNano(), string(e.AppendTime(nil))})
	}
}

// check compares what the scanner makes of text with what encoding/json makes of each line.
func check(t testing.TB, text string) {
	t.Helper()
	ways := []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.HalfReader}
	if len(text) < 4<<10 {
		ways = append(ways, iotest.OneByteReader)
	} else {
		ways = append(ways, func(r io.Reader) io.Reader { return shortReader{r} })
	}
	for _, how := range ways {
		all, skipped := scanAll(t, how(strings.NewReader(text)))
		bad := int64(0)
		i := 0
		for line := range strings.Lines(text) {
			if !strings.HasSuffix(line, "\n") {
				break // not complete
			}
			var w want
			if json.Unmarshal([]byte(line), &w) != nil || w.Stream != "stdout" && w.Stream != "stderr" {
				bad++
				continue
			}
			if i == len(all) {
				t.Fatalf("%d entries of %q, want more", i, text)
			}
			g := all[i]
			i++
			if g.log != w.Log || g.stderr != (w.Stream == "stderr") {
				t.Fatalf("of %q\n got %q stderr %v\nwant %q on %s", line, g.log, g.stderr, w.Log, w.Stream)
			}
			if y := w.Time.Year(); y > 1970 && y < 2200 {
				if stamp := w.Time.Format(stampFixed); g.nano != w.Time.UnixNano() || g.stamp != stamp {
					t.Fatalf("of %q: time %d %s, want %d %s", line, g.nano, g.stamp, w.Time.UnixNano(), stamp)
				}
			}
		}
		if i != len(all) || skipped != bad {
			t.Fatalf("%d entries and %d skipped of %q, want %d and %d", len(all), skipped, text, i, bad)
		}
	}
}

// A shortReader gives odd pieces.
type shortReader struct{ r io.Reader }

func (s shortReader) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 4999)]) }

var stampTest = time.Date(2026, 11, 20, 13, 51, 7, 123456789, time.UTC)

func TestDecodesAsDockerdDoes(t *testing.T) {
	var text strings.Builder
	for i, log := range []string{
		"plain\n", "no newline", "", "\n", "a", "\x00\x01\x1f\x7f\n", "tab\tquote\" slash\\ / \b\f\r\n", "\\n\n", `\`, "\\\n",
		"<b>&amp;</b>\n", "grüße 😀 日本\n", "\u2028\u2029\n", "\xff\xfe broken\n", "cut rune \xe2\x82", strings.Repeat("x", 16<<10),
		strings.Repeat("é\"", 8<<10) + "\n", `","stream":"stderr","time":"2026-11-20T13:51:07Z"}` + "\n",
	} {
		stream := "stdout"
		if i%3 == 0 {
			stream = "stderr"
		}
		for _, d := range []time.Duration{0, 1, 10, 876543211, -123456789, -23456789} {
			text.WriteString(record(log, stream, stampTest.Add(d)))
		}
	}
	check(t, text.String())
}

func TestDecodesOtherForms(t *testing.T) {
	const stamp = `"time":"2026-11-20T13:51:07.1Z"`
	for _, line := range []string{
		`{"log":"a\n","stream":"stdout","attrs":{"env":"x","time":"y"},` + stamp + `}`,
		`{ "log" : "a\n", "stream":"stdout",` + stamp + `}`,
		`{"stream":"stdout","log":"a\n",` + stamp + `}`,
		`{"log":"a\n","stream":"stdout","time":"2026-11-20T13:51:07.1+02:00"}`,
		`{"log":"a\n","stream":"stdin",` + stamp + `}`,
		`{"log":"a\n","stream":"stdout","time":"yesterday at the usual time"}`,
		`{"log":"a\n","stream":"stdout","time":"2026-02-30T13:51:07Z"}`,
		`{"log":"\ud83d\ude00 \ud83d \ude00 \ud83dx \u00e9 \uD83D\uDE00 \ud83d\u0041","stream":"stdout",` + stamp + `}`,
		`{"log":"\ud83d","stream":"stdout",` + stamp + `}`,
		`{"log":"\x41","stream":"stdout",` + stamp + `}`,
		`{"log":"\u12","stream":"stdout",` + stamp + `}`,
		`{"log":"\'","stream":"stdout",` + stamp + `}`,
		`{"log":"\/\u002f","stream":"stdout",` + stamp + `}`,
		"{\"log\":\"raw \xff \xe2\x82 bytes\",\"stream\":\"stdout\"," + stamp + `}`,
		"{\"log\":\"raw tab\t\",\"stream\":\"stdout\"," + stamp + `}`,
		`{"log":"a","x":"b","stream":"stdout",` + stamp + `}`,
		`{"log":"torn`, "", "\x00\x00\x00", "null", `{"log":"a`, `{}`,
		`{"log":"a\n","stream":"stdout",` + stamp + `} `,
		`{"log":"a\n","stream":"stdout",` + stamp + `}}`,
	} {
		check(t, record("before\n", "stdout", stampTest)+line+"\n"+record("after\n", "stderr", stampTest))
		check(t, line)
	}
}

func TestIncompleteRecordIsKept(t *testing.T) {
	var s scanner
	var file bytes.Buffer
	s.reset(&jsonLines{}, &file, fileID{}, 0)
	text := record("first\n", "stdout", stampTest) + record("zw\u00f6lf \"\n", "stderr", stampTest)
	var e Entry
	var all string
	for i := range len(text) {
		file.WriteByte(text[i])
		if err := s.next(&e); err == nil {
			all += string(e.Line)
			if want := int64(i + 1); e.pos.off != want {
				t.Errorf("offset %d after %d bytes", e.pos.off, want)
			}
		} else if err != io.EOF {
			t.Fatal(err)
		}
	}
	if all != "first\nzw\u00f6lf \"\n" || s.pending() != 0 {
		t.Errorf("got %q with %d bytes left", all, s.pending())
	}
}

func TestTooLongRecordIsSkipped(t *testing.T) {
	text := record("a\n", "stdout", stampTest) + strings.Repeat("x", 3*maxRecord) + "\n" + record("b\n", "stdout", stampTest)
	all, skipped := scanAll(t, strings.NewReader(text))
	if len(all) != 2 || all[1].log != "b\n" || skipped != 1 {
		t.Errorf("%d entries, %d skipped", len(all), skipped)
	}
}

func TestParseStamp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		at := time.Unix(r.Int64N(4e9), r.Int64N(1e9)/int64(pow10(r.IntN(10)))*int64(pow10(r.IntN(10)))%1e9).UTC()
		s := at.Format(time.RFC3339Nano)
		if n, ok := parseUTC([]byte(s)); !ok || n != at.UnixNano() {
			t.Fatalf("%s: %d %v, want %d", s, n, ok, at.UnixNano())
		}
		e := Entry{stamp: []byte(s)}
		if got, want := string(e.AppendTime(nil)), at.Format(stampFixed); got != want {
			t.Fatalf("%s printed as %s, want %s", s, got, want)
		}
	}
}

func pow10(n int) (p int) {
	for p = 1; n > 0; n-- {
		p *= 10
	}
	return p
}

// localRecord makes a record as the local driver writes it.
func localRecord(source, line string, nano int64, partial []byte) []byte {
	msg := append([]byte{localSource<<3 | 2, byte(len(source))}, source...)
	msg = binary.AppendUvarint(append(msg, localTime<<3), uint64(nano))
	msg = binary.AppendUvarint(append(msg, localLine<<3|2), uint64(len(line)))
	msg = append(msg, line...)
	if partial != nil {
		msg = append(msg, 4<<3, 1, localPartial<<3|2, byte(len(partial)))
		msg = append(msg, partial...)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(msg)))
	return binary.BigEndian.AppendUint32(append(b, msg...), uint32(len(msg)))
}

func TestDecodesLocalRecords(t *testing.T) {
	var file []byte
	file = append(file, localRecord("stdout", "one", 1, nil)...)
	file = append(file, localRecord("stderr", "", 2, nil)...)
	file = append(file, localRecord("stdout", "part ", 3, []byte{2 << 3 & 0xff, 0})...)
	file = append(file, localRecord("stdout", "end", 1<<62, []byte{partialLast << 3, 1})...)
	for _, how := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader} {
		var s scanner
		s.reset(localRecords{}, how(bytes.NewReader(file)), fileID{}, 0)
		var e Entry
		var all []string
		for s.next(&e) == nil {
			all = append(all, fmt.Sprintf("%v %d %q", e.Stderr, e.UnixNano(), e.Line))
		}
		if got, want := strings.Join(all, ", "), `false 1 "one\n", true 2 "\n", false 3 "part ", false 4611686018427387904 "end\n"`; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func FuzzJSONFile(f *testing.F) {
	f.Add([]byte(record("a\n", "stdout", stampTest)), byte(0))
	f.Add([]byte(`{"log":"\ud83d\ude00\xff\n","stream":"stderr","attrs":{},"time":"2026-11-20T13:51:07.1Z"}`+"\n"), byte(7))
	f.Add([]byte(`{"log":"a\u000","stream":"stdout","time":"2026-11-20T13:51:07Z"}`+"\n{\n"), byte(3))
	f.Fuzz(func(t *testing.T, text []byte, cut byte) {
		check(t, string(text))
		// As the content of a record it must come back as encoding/json gives it.
		check(t, record(string(text), "stdout", stampTest)+record(string(text[min(len(text), int(cut)):]), "stderr", stampTest))
	})
}

func FuzzLocalFile(f *testing.F) {
	f.Add(localRecord("stdout", "line", 1, nil))
	f.Add(localRecord("stderr", "line", 1, []byte{partialLast << 3, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s scanner
		s.reset(localRecords{}, bytes.NewReader(bytes.Clone(b)), fileID{}, 0)
		var e Entry
		n := 0
		for s.next(&e) == nil {
			n += len(e.Line)
		}
		if n > len(b) {
			t.Errorf("%d bytes of lines in %d bytes of file", n, len(b))
		}
	})
}

func BenchmarkJSONFileDecode(b *testing.B) {
	plainLine := strings.Repeat("0123456789", 10)[:99] + "\n"
	escaped := strings.Repeat("01234567\t\"", 10)[:99] + "\n"
	utf8Line := strings.ToValidUTF8(strings.Repeat("grüße ", 16)[:99], "") + "\n"
	for _, c := range []struct {
		name string
		line func(i int) string
	}{
		{"plain", func(int) string { return plainLine }},
		{"escaped10pc", func(i int) string {
			if i%10 == 0 {
				return escaped
			}
			return plainLine
		}},
		{"allEscaped", func(int) string { return escaped }},
		{"utf8", func(int) string { return utf8Line }},
	} {
		var file bytes.Buffer
		payload := 0
		for i := range 100_000 {
			line := c.line(i)
			payload += len(line)
			file.WriteString(record(line, "stdout", stampTest.Add(time.Duration(i)*time.Microsecond)))
		}
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(payload))
			var s scanner
			var e Entry
			dec := &jsonLines{}
			src := bytes.NewReader(nil)
			b.ReportAllocs()
			for b.Loop() {
				src.Reset(file.Bytes())
				s.reset(dec, src, fileID{}, 0)
				n := 0
				for s.next(&e) == nil {
					n += len(e.Line)
				}
				if n != payload {
					b.Fatalf("%d bytes, want %d", n, payload)
				}
			}
		})
	}
}
