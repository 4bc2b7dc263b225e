package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// output collects what a command says.
type output struct {
	mu   sync.Mutex
	out  bytes.Buffer
	errs []string
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out.Write(p)
}

func (o *output) sink() Sink {
	return Sink{Out: o, Err: func(line string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.errs = append(o.errs, line)
	}}
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out.String()
}

func newService(t testing.TB, cfg Config) *Service {
	t.Helper()
	if cfg.Awk.Path == "" {
		cfg.Awk = awkCommand()
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fixtures writes the files that the command lines below name.
func fixtures(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var app strings.Builder
	levels := []string{"INFO", "WARN", "ERROR", "debug", "Info"}
	for i := range 5000 {
		fmt.Fprintf(&app, "2026-11-20T12:%02d:%02d.%03dZ %s [worker-%d] request id=%d took %d ms path=/api/v%d/items\n",
			i/60%60, i%60, i*7%1000, levels[i%len(levels)], i%7, i*37%1000, i*13%977, i%3)
	}
	write("app.log", app.String())
	write("small.log", "alpha\nbeta\ngamma\ndelta\nepsilon\n")
	write("nonl.log", "one\ntwo\nthree without newline")
	write("empty.log", "")
	write("blank.log", "a\n\n\n\nb\n\n\nc\n")
	write("dup.log", "b\na\na\nA\nb\nb\nc\nc\nC\na\n")
	write("num.log", "10\n9\n-3\n2.50\n2.5\n0\n1e3\nabc\n\n+7\n 8\n007\n")
	write("human.log", "1K\n2M\n512\n3G\n1.5K\n10\n-2K\n0\n")
	write("fields.log", "x 3 apple\ny 1 pear\nz 2 fig\nx 1 apple\ny 10 date\n  w 5 kiwi\n")
	write("csv.log", "id,name,score\n3,carol,9.5\n1,alice,10\n2,bob,8\n10,dave,9.5\n")
	write("months.log", "Mar 3\nJan 9\nDec 1\nfeb 2\nxyz\nJan 1\n")
	write("tabs.log", "a\tb\tc\nd\te\tf\n\x01\x7f\xc3\xa9\n")
	write("utf8.log", "grün\nÜbung\nnaïve café\n日本語ログ\nplain\n")
	write("regex.log", "foo.bar\nfoobar\nfoo+bar\nfooo\n(paren)\n[bracket]\na{2}\naa\nword words sword\nend$\n^start\nback\\slash\nab\nabab\nxaby\n")
	long := strings.Repeat("0123456789", 20000)
	write("long.log", "short\n"+long+"needle"+long+"\nlast\n")
	var gz bytes.Buffer
	zw := gzip.NewWriter(&gz)
	if _, err := zw.Write([]byte(app.String())); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	write("old.log.gz", gz.String())
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("sub/one.txt", strings.Repeat("x", 3000))
	write("sub/two.txt", "2")
	if err := os.Symlink("one.txt", filepath.Join(dir, "sub/link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// commandLines are run here and by the real programs; @ stands for the directory.
const commandLines = `
cat @/app.log
cat @/small.log @/nonl.log @/empty.log
cat -n @/small.log
cat -n @/small.log @/blank.log
cat -b @/blank.log
cat -s @/blank.log
cat -sn @/blank.log
cat -A @/tabs.log
cat -e @/tabs.log
cat -t @/tabs.log
cat -T @/tabs.log
cat -E @/nonl.log
cat -v @/tabs.log
cat --number --squeeze-blank @/blank.log
cat -- @/small.log
cat @/missing.log
cat @/missing.log @/small.log
cat @/sub
cat @/s*.log
cat @/*p.log
cat @/no*match
cat @/small.log | cat -n
cat @/app.log | cat | cat | cat
cat '@/small.log'
cat "@/small.log"
cat @/sm\all.log
cat - @/small.log
head @/app.log
head -n 3 @/app.log
head -3 @/app.log
head -n 0 @/app.log
head --lines=2 @/app.log
head -n -4990 @/app.log
head -n -2 @/small.log
head -n -2 @/nonl.log
head -n -100 @/small.log
head -c 10 @/app.log
head -c -5 @/small.log
head -c 1K @/app.log
head -n 2 @/small.log @/nonl.log
head -q -n 2 @/small.log @/nonl.log
head -v -n 1 @/small.log
head @/missing.log
head -n 2 @/missing.log @/small.log
cat @/app.log | head -n 5
cat @/app.log | head -c 100
head -n 500 @/app.log | head -n 2
tail @/app.log
tail -n 3 @/app.log
tail -3 @/app.log
tail -n 0 @/app.log
tail -n 1 @/nonl.log
tail -n 2 @/nonl.log
tail -n 100 @/small.log
tail -n +3 @/small.log
tail -n +1 @/small.log
tail -n +0 @/small.log
tail -n +100 @/small.log
tail -n +4990 @/app.log
tail -c 10 @/app.log
tail -c +5 @/small.log
tail -c +0 @/small.log
tail -c 1K @/app.log
tail --lines 2 @/small.log
tail -n 2 @/small.log @/nonl.log
tail -q -n 2 @/small.log @/nonl.log
tail -v -n 2 @/small.log
tail @/empty.log
tail @/missing.log
tail -n 1 @/long.log
cat @/app.log | tail -n 4
cat @/app.log | tail -c 20
cat @/small.log | tail -n +2
cat @/nonl.log | tail -n 1
tail -n 200 @/app.log | grep -i error
tail -n 200 @/app.log | grep -c INFO
grep ERROR @/app.log
grep -i error @/app.log
grep -c ERROR @/app.log
grep -ci info @/app.log
grep -v ERROR @/app.log
grep -vc ERROR @/app.log
grep -n WARN @/app.log
grep -n 'id=37 ' @/app.log
grep -b WARN @/small.log
grep -b gamma @/small.log
grep -o 'id=[0-9]*' @/app.log
grep -on 'took [0-9]* ms' @/app.log
grep -ob 'a' @/small.log
grep -m 3 ERROR @/app.log
grep -m 3 -n ERROR @/app.log
grep -m 0 ERROR @/app.log
grep -l ERROR @/app.log @/small.log
grep -L ERROR @/app.log @/small.log
grep -h a @/small.log @/dup.log
grep -H a @/small.log
grep a @/small.log @/dup.log
grep -c a @/small.log @/dup.log
grep -n a @/small.log @/dup.log
grep -q a @/small.log
grep -q zzz @/small.log
grep -s a @/missing.log @/small.log
grep a @/missing.log @/small.log
grep zzz @/small.log
grep -A 1 beta @/small.log
grep -B 1 beta @/small.log
grep -C 1 gamma @/small.log
grep -1 gamma @/small.log
grep -n -C 1 delta @/small.log
grep -A 2 'id=5 ' @/app.log
grep -B 3 -A 1 'id=111 ' @/app.log
grep -C 2 'worker-3.*id=1[0-9][0-9] ' @/app.log
grep -c -A 2 a @/small.log
grep -m 1 -A 2 a @/small.log
grep -v -A 1 a @/small.log
grep -A 1 a @/small.log @/dup.log
grep -e alpha -e gamma @/small.log
grep -E 'alpha|gamma' @/small.log
grep 'alpha\|gamma' @/small.log
egrep 'alpha|gamma' @/small.log
grep -F 'foo.bar' @/regex.log
fgrep 'foo+bar' @/regex.log
grep 'foo.bar' @/regex.log
grep 'foo\.bar' @/regex.log
grep 'foo+bar' @/regex.log
grep 'fo\+bar' @/regex.log
grep 'fo\?o' @/regex.log
grep -E 'fo+bar' @/regex.log
grep -E 'fo?o' @/regex.log
grep '(paren)' @/regex.log
grep -E '\(paren\)' @/regex.log
grep '\(ab\)*y' @/regex.log
grep -E '(ab){2}' @/regex.log
grep 'a\{2\}' @/regex.log
grep 'a{2}' @/regex.log
grep -E 'a{2}' @/regex.log
grep '[[]bracket[]]' @/regex.log
grep '[]]' @/regex.log
grep '^[[:alpha:]]*$' @/regex.log
grep '[^[:alnum:]]' @/regex.log
grep -w word @/regex.log
grep -ow 'word' @/regex.log
grep -x foobar @/regex.log
grep -xE 'foo+|aa' @/regex.log
grep '\bword\b' @/regex.log
grep '\<words\>' @/regex.log
grep 'end\$' @/regex.log
grep '\^start' @/regex.log
grep 'back\\slash' @/regex.log
grep '^' @/small.log
grep '$' @/small.log
grep '' @/small.log
grep -v '' @/small.log
grep '*' @/regex.log
grep 'a*' @/small.log
grep -i grün @/utf8.log
grep -i ÜBUNG @/utf8.log
grep 'caf.' @/utf8.log
grep -o '本.' @/utf8.log
grep needle @/long.log
grep -c needle @/long.log
grep -o needle @/long.log
grep -a -n last @/long.log
grep -P 'id=\d{2} ' @/app.log
grep ERROR @/app.log | grep -v worker-1 | head -n 5
cat @/app.log | grep X
cat @/app.log | grep -c worker
grep three @/nonl.log
grep -v one @/nonl.log
zgrep ERROR @/old.log.gz
zgrep -c INFO @/old.log.gz
zgrep -n 'id=37 ' @/old.log.gz
zcat @/old.log.gz | head -n 3
sort @/small.log
sort -r @/small.log
sort @/dup.log
sort -u @/dup.log
sort -f @/dup.log
sort -fu @/dup.log
sort -n @/num.log
sort -nr @/num.log
sort -g @/num.log
sort -nu @/num.log
sort -h @/human.log
sort -M @/months.log
sort -k 2 @/fields.log
sort -k 2n @/fields.log
sort -k 2,2n -k 3 @/fields.log
sort -k 3,3 -k 2,2nr @/fields.log
sort -b -k 2 @/fields.log
sort -k 1.2,1.3 @/small.log
sort -s -k 1,1 @/fields.log
sort -r -k 1,1 @/fields.log
sort -t , -k 3,3nr @/csv.log
sort -t, -k2 @/csv.log
sort -t , -k 1n @/csv.log
sort -t ' ' -k 2 @/fields.log
sort @/small.log @/dup.log
sort @/missing.log
sort @/nonl.log
sort @/empty.log
sort -k 5 @/app.log
sort -t = -k 2n @/app.log
uniq @/dup.log
uniq -c @/dup.log
uniq -d @/dup.log
uniq -D @/dup.log
uniq -u @/dup.log
uniq -i @/dup.log
uniq -ci @/dup.log
uniq -f 1 @/fields.log
uniq -s 1 @/dup.log
uniq -w 1 @/dup.log
sort @/dup.log | uniq
sort @/dup.log | uniq -c
sort @/dup.log | uniq -c | sort -nr
sort @/dup.log | uniq -c | sort -k1,1nr -k2
wc @/small.log
wc -l @/app.log
wc -lwc @/app.log @/small.log
wc -c @/empty.log
cat @/small.log | wc -l
cat @/small.log | wc
awk '{print $1}' @/fields.log
awk '{print $2, $1}' @/fields.log
awk -F , '{print $2}' @/csv.log
awk -F, 'NR>1 {s+=$3} END {print s}' @/csv.log
awk '/ERROR/ {n++} END {print n}' @/app.log
awk '$2 > 2' @/fields.log
awk 'NR % 1000 == 0' @/app.log
awk -v min=900 '{split($6, a, "="); if (a[2] > min) c++} END {print c}' @/app.log
awk 'BEGIN {print 1+1}'
awk '{print length($0)}' @/small.log
awk 'END {print NR}' @/app.log
cat @/fields.log | awk '{print $3}' | sort | uniq -c
grep took @/app.log | awk '{print $6}' | sort -u | head -n 5
ls @
ls -a @/sub
ls -A @/sub
ls -l @/sub
ls -l @/sub/one.txt
ls -lh @/sub
ls -la @/sub/one.txt
ls -r @
ls -S @
ls -lS @
ls -d @/sub
ls @/*.log
ls @/missing
ls -n @/sub
ls -go @/sub
`

func TestSameAsGNU(t *testing.T) {
	dir := fixtures(t)
	s := newService(t, Config{
		Roots: []string{dir}, Limits: Limits{MaxLines: -1, Timeout: -1},
		Commands: []string{"cat", "head", "tail", "grep", "egrep", "fgrep", "zgrep", "zcat", "sort", "uniq", "wc", "awk", "ls"},
	})
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(commandLines, "@", dir)), "\n")
	if len(lines) < 200 {
		t.Fatalf("only %d command lines", len(lines))
	}
	for _, line := range lines {
		t.Run(strings.ReplaceAll(line, dir, ""), func(t *testing.T) {
			want, wantCode := realPrograms(t, line)
			p, err := Parse(line)
			if err != nil {
				t.Fatal(err)
			}
			var got output
			result, err := s.Run(context.Background(), p, got.sink())
			if err != nil {
				t.Fatalf("Run: %v", err)
			}
			if got.text() != want {
				t.Errorf("output differs:\n%s", diff(got.text(), want))
			}
			if result.ExitCode != wantCode {
				t.Errorf("exit code %d, the real program gives %d (%q)", result.ExitCode, wantCode, got.errs)
			}
		})
	}
}

// realPrograms runs a line through a shell and the programs of this machine.
func realPrograms(t *testing.T, line string) (string, int) {
	t.Helper()
	cmd := exec.Command("bash", "-c", line)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=" + os.Getenv("TZ")}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if strings.Contains(stderr.String(), "command not found") {
		t.Fatalf("%s", stderr.String())
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// diff shows the first place where two texts differ.
func diff(got, want string) string {
	g, w := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: got %.200q, want %.200q (%d and %d lines)", i+1, g[i], w[i], len(g), len(w))
		}
	}
	return fmt.Sprintf("got %d lines, want %d; last got %.200q, want %.200q", len(g), len(w), g[len(g)-1], w[len(w)-1])
}
