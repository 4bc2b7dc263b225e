package logs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hostileLines must all be refused. @ is a root of the jail, % is a directory beside it that holds secret.txt.
const hostileLines = `
cat @/a.log; id
cat @/a.log ; cat %/secret.txt
cat @/a.log && cat %/secret.txt
cat @/a.log || cat %/secret.txt
cat @/a.log & cat %/secret.txt
cat @/a.log &
cat @/a.log |& cat
(cat @/a.log)
{ cat @/a.log; }
! cat @/a.log
if true; then cat @/a.log; fi
for f in @/a.log; do cat $f; done
while true; do cat @/a.log; done
until false; do cat @/a.log; done
case x in x) cat @/a.log;; esac
select x in a b; do cat @/a.log; done
f() { cat @/a.log; }; f
function f { cat @/a.log; }
[[ -f @/a.log ]]
(( 1 + 1 ))
let x=1
declare x=1
time cat @/a.log
coproc cat @/a.log
cat $(ls @)
cat "$(ls @)"
cat @/$(echo a.log)
cat @/a.log | grep $(id)
cat @/a.log | grep "$(id)"
grep "$(cat %/secret.txt)" @/a.log
cat @/a.log | grep ${HOME}
cat $HOME/a.log
cat "$HOME"
cat "${PATH}"
cat ${x:-%/secret.txt}
cat $'%/secret.txt'
cat $"%/secret.txt"
cat $((1+1))
cat <(ls)
cat @/a.log > @/b.log
cat @/a.log >> @/b.log
cat @/a.log >| @/b.log
cat @/a.log &> @/b.log
cat @/a.log &>> @/b.log
cat @/a.log 2> @/b.log
cat @/a.log 2>&1
cat @/a.log 1>&2
cat < %/secret.txt
cat < @/a.log
cat 0< %/secret.txt
cat <> %/secret.txt
cat << EOF
cat <<< %/secret.txt
cat @/a.log | tee @/b.log
cat @/a.log | sh
cat @/a.log | bash -c id
cat @/a.log | xargs rm
X=1 cat @/a.log
X=1
PATH=/tmp cat @/a.log
LD_PRELOAD=x cat @/a.log
cat ~/secret.txt
cat ~root/secret.txt
cat {@/a.log,%/secret.txt}
cat %/secret{.txt,.log}
cat @/{1..3}.log
sh
sh -c id
bash
/bin/cat %/secret.txt
/bin/sh -c id
./cat @/a.log
../bin/cat @/a.log
'/bin/sh' -c id
"sh" -c id
s\h -c id
eval cat @/a.log
exec cat @/a.log
source @/a.log
. @/a.log
alias x=y
env cat @/a.log
nohup cat @/a.log
sudo cat @/a.log
nice cat @/a.log
timeout 5 cat @/a.log
xargs cat
find @ -exec id {} +
find @ -delete
sed -n 1p @/a.log
sed -i s/a/b/ @/a.log
perl -e 'system("id")'
python3 -c 'import os'
rm @/a.log
rm -rf @
mv @/a.log @/b.log
cp %/secret.txt @/b.log
ln -s %/secret.txt @/x
touch @/x
chmod 777 @/a.log
dd if=%/secret.txt
tee @/b.log
vi @/a.log
less @/a.log
more @/a.log
curl http://127.0.0.1/
wget http://127.0.0.1/
nc 127.0.0.1 1
ssh host
kill 1
docker ps
true
:
cat %/secret.txt
cat @/../secret/secret.txt
cat @/./../secret/secret.txt
cat @/sub/../../secret/secret.txt
cat @//..//secret/secret.txt
cat @/../../../../../../../../etc/passwd
cat ../secret/secret.txt
cat /etc/passwd
cat /etc/shadow
cat /proc/self/environ
cat /proc/1/environ
cat /proc/self/root/etc/passwd
cat /proc/self/fd/0
cat /proc/self/cwd/secret.txt
cat /dev/mem
cat /dev/zero
cat /dev/stdin
cat /dev/tty
cat /sys/kernel/notes
cat @/escape.log
cat @/escapedir/secret.txt
cat @/abs.log
cat @/chain1
cat @/loop1
cat @/procdir/self/environ
cat @/devzero
cat @/fifo
cat @/socket
cat @
cat @/sub
head %/secret.txt
head -n 1 @/escape.log
tail %/secret.txt
tail -n 1 @/escapedir/secret.txt
tail -f %/secret.txt
tail -f @/escape.log
tail -f @/fifo
tail -F @/abs.log
tail --pid=1 -f @/a.log
tail --follow=name --pid 1 @/a.log
tail --max-unchanged-stats=1 @/a.log
grep top %/secret.txt
grep -r top %
grep -r top @/..
grep -R top @
grep --recursive top @
grep -f %/secret.txt @/a.log
grep -f @/a.log %/secret.txt
grep --file=%/secret.txt @/a.log
grep --include=* top @
grep -D read top @/fifo
grep -d recurse top @
grep --exclude-from=%/secret.txt a @/a.log
grep -z top @/a.log
grep top @/escape.log
grep 'a\(b\)\1' @/a.log
grep 'a[' @/a.log
grep -E '(' @/a.log
grep -E 'a{99999}' @/a.log
grep '[[.a.]]' @/a.log
zgrep top %/secret.txt
zgrep -f %/secret.txt @/a.log
zgrep --decompress-program=id a @/a.log
sort %/secret.txt
sort -o @/b.log @/a.log
sort --output=@/b.log @/a.log
sort @/a.log -o @/b.log
sort -T /tmp @/a.log
sort --temporary-directory=/tmp @/a.log
sort --compress-program=id @/a.log
sort --files0-from=%/secret.txt
sort -m @/a.log
sort --parallel=100 @/a.log
sort -S 99999G @/a.log
sort --random-source=%/secret.txt -R @/a.log
sort -k 0 @/a.log
sort -k x @/a.log
sort -t ab @/a.log
uniq @/a.log @/b.log
uniq %/secret.txt
uniq @/a.log %/out
uniq -z @/a.log
ls %
ls /
ls /etc
ls -l /root
ls @/..
ls -R @
ls -R /
ls @/escapedir
ls @/../*
ls --time-style=full-iso @
cat @/../secret/*
cat /*/*
cat /et?/passwd
cat @/*/../../secret/secret.txt
ls @/[a-
awk 'BEGIN {system("id")}'
awk 'BEGIN {system("cat %/secret.txt")}'
awk 'BEGIN {"id" | getline x; print x}'
awk 'BEGIN {print "x" | "sh"}'
awk 'BEGIN {print "x" > "@/b.log"}'
awk 'BEGIN {print "x" >> "@/b.log"}'
awk 'BEGIN {getline x < "%/secret.txt"; print x}'
awk 'BEGIN {while ((getline x < "/etc/passwd") > 0) print x}'
awk 'BEGIN {printf "x" > "/dev/tcp/127.0.0.1/1"}'
awk '{print}' %/secret.txt
awk -f %/secret.txt @/a.log
awk --file=%/secret.txt @/a.log
awk -E %/secret.txt
awk -i inplace '{print}' @/a.log
awk -l x '{print}' @/a.log
awk 'BEGIN {ARGV[1]="%/secret.txt"; ARGC=2} {print}'
awk --include=%/secret.txt '{print}' @/a.log
awk --load=x '{print}' @/a.log
awk 'BEGIN {'
awk -v x '{print}' @/a.log
awk
grep
tail -n x @/a.log
tail -n 99999999999999999999 @/a.log
head -n -x @/a.log
head -c 1Z @/a.log
head --files0-from=%/secret.txt
cat --help
cat --version
cat -Z @/a.log
cat --show-al @/a.log
echo hello >> @/a.log
echo hello >> %/secret.txt
echo hello >> %/stdin/../secret.txt
echo hello >> %/stdin/new.txt
echo hello >> %/stdin/link
echo hello > %/stdin/in.txt
echo hello >> %/stdin/*
echo -e 'a\nb' >> %/stdin/in.txt
echo hello >> %/stdin/in.txt >> %/secret.txt
cat @/a.log >> %/stdin/in.txt
cat @/a.log | echo x >> %/stdin/in.txt
echo $(id) >> %/stdin/in.txt
echo hello
"" @/a.log
'cat'"x" @/a.log
cat 'unclosed
cat "unclosed
cat @/a.log |
| cat @/a.log
cat @/a.log || 
cat @/a.log | | cat
>> %/stdin/in.txt
cat @/missing.log
cat @/a.log/x
cat \
`

func TestHostileLinesAreRefused(t *testing.T) {
	base := t.TempDir()
	root, secret := filepath.Join(base, "logs"), filepath.Join(base, "secret")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const topSecret = "top secret: 42"
	must(os.MkdirAll(filepath.Join(root, "sub"), 0o755))
	must(os.MkdirAll(filepath.Join(secret, "stdin"), 0o755))
	must(os.WriteFile(filepath.Join(root, "a.log"), []byte("plain\n"), 0o644))
	must(os.WriteFile(filepath.Join(secret, "secret.txt"), []byte(topSecret+"\n"), 0o644))
	must(os.WriteFile(filepath.Join(secret, "stdin", "in.txt"), nil, 0o644))
	must(os.Symlink("../secret.txt", filepath.Join(secret, "stdin", "link")))
	must(os.Symlink("../secret/secret.txt", filepath.Join(root, "escape.log")))
	must(os.Symlink("../secret", filepath.Join(root, "escapedir")))
	must(os.Symlink(filepath.Join(secret, "secret.txt"), filepath.Join(root, "abs.log")))
	must(os.Symlink("chain2", filepath.Join(root, "chain1")))
	must(os.Symlink("sub/chain3", filepath.Join(root, "chain2")))
	must(os.Symlink("../../secret/secret.txt", filepath.Join(root, "sub", "chain3")))
	must(os.Symlink("loop2", filepath.Join(root, "loop1")))
	must(os.Symlink("loop1", filepath.Join(root, "loop2")))
	must(os.Symlink("/proc", filepath.Join(root, "procdir")))
	must(unix.Mkfifo(filepath.Join(root, "fifo"), 0o666))
	must(unix.Mknod(filepath.Join(root, "devzero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
	must(unix.Mknod(filepath.Join(root, "socket"), unix.S_IFSOCK|0o666, 0))

	s := newService(t, Config{Roots: []string{root}, StdinRoots: []string{filepath.Join(secret, "stdin")}})
	lines := strings.Split(strings.Trim(hostileLines, "\n"), "\n")
	if len(lines) < 200 {
		t.Fatalf("only %d hostile lines", len(lines))
	}
	lines = append(lines, "cat @/a.log\ncat %/secret.txt", "cat @/a.log\x00", "cat @/a.log\r", "", "   ", "# a comment",
		"cat @/a.log `id`", "cat `cat %/secret.txt`", `cat "`+"`id`"+`"`, strings.Repeat("cat @/a.log |", 3000)+" cat", "cat "+strings.Repeat("A", 20_000))
	for _, line := range lines {
		t.Run(line[:min(len(line), 60)], func(t *testing.T) {
			line := strings.NewReplacer("@", root, "%", secret).Replace(line)
			var got output
			p, err := Parse(line)
			var result Result
			if err == nil {
				result, err = s.Run(context.Background(), p, got.sink())
			}
			var refusal *Refusal
			if errors.As(err, &refusal) && refusal.Reason == "" {
				t.Error("refused without a reason")
			}
			if err == nil && (result.ExitCode == 0 || len(got.errs) == 0) {
				t.Errorf("ran: exit code %d, said %q and wrote %q", result.ExitCode, got.errs, got.text())
			}
			if strings.Contains(got.text(), topSecret) || strings.Contains(got.text(), "root:") {
				t.Errorf("leaked: %q", got.text())
			}
		})
	}
	for name, want := range map[string]string{
		filepath.Join(root, "a.log"): "plain\n", filepath.Join(secret, "secret.txt"): topSecret + "\n", filepath.Join(secret, "stdin", "in.txt"): "",
	} {
		if have, err := os.ReadFile(name); err != nil || string(have) != want {
			t.Errorf("%s: %q, %v; want it untouched", name, have, err)
		}
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 13 {
		t.Errorf("the root has %d entries, %v: something was made", len(entries), err)
	}
}

func TestRefusalsNameThePosition(t *testing.T) {
	for line, want := range map[string]string{
		"cat /l/a ; id":       "refused: only one pipeline is run, without ; (column 10)",
		"cat /l/$HOME":        "refused: a variable is not allowed (column 8)",
		"cat `id`":            "refused: a command substitution (`) is not allowed (column 5)",
		"cat /l/a > /l/b":     "refused: redirection > is not allowed (column 10)",
		"cat /l/a && id":      "refused: && is not allowed, only | (column 10)",
		"cat ~/x":             "refused: ~ is not expanded; write the whole path (column 5)",
		"cat /l/a &":          "refused: & (a background job) is not allowed (column 10)",
		"cat a\nid":           "refused: a command is one line (column 6)",
		"FOO=1 cat /l/a":      "refused: assignments are not allowed (column 1)",
		"cat 'open":           "refused: reached EOF without closing quote `'` (column 5)",
		"":                    "refused: the command line is empty",
		"cat /l/a >> /l/b":    "refused: only echo appends with >> (column 13)",
		"cat /l/a | sort > x": "refused: redirection > is not allowed (column 17)",
	} {
		_, err := Parse(line)
		if err == nil || err.Error() != want {
			t.Errorf("Parse(%q): %v, want %s", line, err, want)
		}
	}
}

func TestAppend(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "stdin")
	if err := os.WriteFile(file, []byte("first\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newService(t, Config{Roots: []string{"/nonexistent-root"}, StdinRoots: []string{dir}})
	for _, line := range []string{`echo hello world >> ` + file, `echo -n 'a  "b"' >> ` + file, `echo "c;d|e" >> '` + file + `'`} {
		p, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Run(context.Background(), p, Sink{}); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	got, err := os.ReadFile(file)
	if want := "first\nhello world\na  \"b\"c;d|e\n"; err != nil || string(got) != want {
		t.Errorf("the file holds %q, %v; want %q", got, err, want)
	}
}

// FuzzParse holds the parser to two promises: it never panics, and what it lets through are plain words.
func FuzzParse(f *testing.F) {
	for _, line := range strings.Split(hostileLines+commandLines, "\n") {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		p, err := Parse(line)
		if err != nil {
			var refusal *Refusal
			if !errors.As(err, &refusal) {
				t.Fatalf("%q: %T is no refusal", line, err)
			}
			return
		}
		if len(p.Stages) == 0 {
			t.Fatalf("%q: accepted without a command", line)
		}
		if strings.ContainsAny(line, "\n\r\x00") {
			t.Fatalf("%q: accepted with a line break", line)
		}
	})
}

// FuzzJail holds the jail to its promise: whatever the name, what is opened lies in the root.
func FuzzJail(f *testing.F) {
	for _, name := range []string{"a.log", "../secret", "sub/../../secret", "/etc/passwd", "./a.log", "link", "dir/a.log", "\x00", "a.log/.."} {
		f.Add(name)
	}
	base := f.TempDir()
	root := filepath.Join(base, "root")
	for _, err := range []error{
		os.Mkdir(root, 0o755), os.WriteFile(filepath.Join(root, "a.log"), []byte("inside"), 0o644),
		os.WriteFile(filepath.Join(base, "secret"), []byte("outside"), 0o644),
		os.Symlink("../secret", filepath.Join(root, "link")), os.Symlink("..", filepath.Join(root, "dir")),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	jail := Jail{Roots: []string{root}}
	f.Fuzz(func(t *testing.T, name string) {
		for _, full := range []string{root + "/" + name, name} {
			file, err := jail.Open(full)
			if err != nil {
				continue
			}
			content := make([]byte, 16)
			n, _ := file.Read(content)
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
			if string(content[:n]) != "inside" {
				t.Fatalf("%q opened %q", full, content[:n])
			}
		}
	})
}
