package fake

import (
	"context"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"
)

// builtins are the programs that every engine has.
func builtins() map[string]Program {
	m := map[string]Program{
		"sh":     runShell,
		"true":   func(context.Context, *Process) int { return 0 },
		":":      func(context.Context, *Process) int { return 0 },
		"false":  func(context.Context, *Process) int { return 1 },
		"echo":   runEcho,
		"printf": runPrintf,
		"cat":    runCat,
		"sleep":  runSleep,
		"env":    runEnv,
		"pwd":    func(_ context.Context, p *Process) int { return say(p, p.Dir) },
		"id":     runID,
		"stty":   runStty,
		"head":   runHead,
		"wc":     runWc,
		"seq":    runSeq,
		"test":   runTest,
		"[":      runTest,
		"mkdir":  runMkdir,
	}
	m["ash"], m["bash"] = m["sh"], m["sh"]
	return m
}

func notFound(_ context.Context, p *Process) int {
	fmt.Fprintf(p.Stderr, "exec: %q: executable file not found in $PATH\n", strings.Join(p.Args[:min(1, len(p.Args))], ""))
	return 127
}

func say(p *Process, text string) int {
	if _, err := io.WriteString(p.Stdout, text+"\n"); err != nil {
		return 1
	}
	return 0
}

func complain(p *Process, err error) int {
	fmt.Fprintf(p.Stderr, "%s: %v\n", p.Args[0], err)
	return 1
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

func runEcho(_ context.Context, p *Process) int {
	args := p.Args[1:]
	if len(args) > 0 && args[0] == "-n" {
		if _, err := io.WriteString(p.Stdout, strings.Join(args[1:], " ")); err != nil {
			return 1
		}
		return 0
	}
	return say(p, strings.Join(args, " "))
}

// runPrintf knows \n and %s.
func runPrintf(_ context.Context, p *Process) int {
	if len(p.Args) < 2 {
		return 1
	}
	text := strings.ReplaceAll(p.Args[1], `\n`, "\n")
	for _, arg := range p.Args[2:] {
		text = strings.Replace(text, "%s", arg, 1)
	}
	if _, err := io.WriteString(p.Stdout, text); err != nil {
		return 1
	}
	return 0
}

func runCat(ctx context.Context, p *Process) int {
	if len(p.Args) < 2 {
		return copyInput(ctx, p, p.Stdin)
	}
	for _, name := range p.Args[1:] {
		data, err := p.files.read(resolve(p, name))
		if err != nil {
			return complain(p, err)
		}
		if _, err := p.Stdout.Write(data); err != nil {
			return 1
		}
	}
	return 0
}

func copyInput(ctx context.Context, p *Process, from io.Reader) int {
	buf := make([]byte, 32<<10)
	for ctx.Err() == nil {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := p.Stdout.Write(buf[:n]); err != nil {
				return 1
			}
		}
		if err != nil {
			return 0
		}
	}
	return 1
}

func runSleep(ctx context.Context, p *Process) int {
	var total time.Duration
	for _, arg := range p.Args[1:] {
		seconds, err := strconv.ParseFloat(arg, 64)
		if err != nil {
			return complain(p, err)
		}
		total += time.Duration(seconds * float64(time.Second))
	}
	if !sleep(ctx, total) {
		return 1
	}
	return 0
}

func runEnv(_ context.Context, p *Process) int { return say(p, strings.Join(p.Env, "\n")) }

// runID knows id -u.
func runID(_ context.Context, p *Process) int {
	user, _, _ := strings.Cut(p.User, ":")
	switch user {
	case "", "root":
		user = "0"
	case "nobody":
		user = "65534"
	}
	return say(p, user)
}

// runStty knows stty size.
func runStty(_ context.Context, p *Process) int {
	if !p.TTY {
		fmt.Fprintln(p.Stderr, "stty: standard input: Not a tty")
		return 1
	}
	size := p.Size()
	return say(p, fmt.Sprintf("%d %d", size.Height, size.Width))
}

// runHead knows head -c N.
func runHead(_ context.Context, p *Process) int {
	if len(p.Args) < 3 || p.Args[1] != "-c" {
		return 1
	}
	source := p.Stdin
	if len(p.Args) > 3 {
		data, err := p.files.read(resolve(p, p.Args[3]))
		if err != nil {
			return complain(p, err)
		}
		source = strings.NewReader(string(data))
	}
	if _, err := io.CopyN(p.Stdout, source, int64(number(p.Args[2]))); err != nil && err != io.EOF {
		return 1
	}
	return 0
}

// runWc knows wc -c.
func runWc(_ context.Context, p *Process) int {
	n, err := io.Copy(io.Discard, p.Stdin)
	if err != nil {
		return complain(p, err)
	}
	return say(p, strconv.FormatInt(n, 10))
}

func runSeq(ctx context.Context, p *Process) int {
	first, last := 1, number(p.Args[len(p.Args)-1])
	if len(p.Args) > 2 {
		first = number(p.Args[1])
	}
	for i := first; i <= last && ctx.Err() == nil; i++ {
		if say(p, strconv.Itoa(i)) != 0 {
			return 1
		}
	}
	return 0
}

// runTest knows the common forms of two and three words.
func runTest(_ context.Context, p *Process) int {
	args := p.Args[1:]
	if p.Args[0] == "[" && len(args) > 0 {
		args = args[:len(args)-1]
	}
	ok := false
	switch {
	case len(args) == 1:
		ok = args[0] != ""
	case len(args) == 2 && args[0] == "-t":
		ok = p.TTY
	case len(args) == 2 && args[0] == "-n":
		ok = args[1] != ""
	case len(args) == 2 && args[0] == "-z":
		ok = args[1] == ""
	case len(args) == 2 && (args[0] == "-e" || args[0] == "-f" || args[0] == "-d"):
		_, err := p.files.stat(resolve(p, args[1]))
		ok = err == nil
	case len(args) == 3 && args[1] == "=":
		ok = args[0] == args[2]
	case len(args) == 3 && args[1] == "!=":
		ok = args[0] != args[2]
	case len(args) == 3 && args[1] == "-lt":
		ok = number(args[0]) < number(args[2])
	}
	if ok {
		return 0
	}
	return 1
}

func runMkdir(_ context.Context, p *Process) int {
	for _, name := range p.Args[1:] {
		if name != "-p" {
			p.files.mkdir(resolve(p, name))
		}
	}
	return 0
}

func resolve(p *Process, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(p.Dir, name)
}
