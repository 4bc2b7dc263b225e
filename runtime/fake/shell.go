package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// A shell runs the small part of the shell language that tests need: lists, pipes, conditions, loops, variables,
// redirections, and the commands of commands.go.
type shell struct {
	*Process
	vars map[string]string
	code int
	exit bool
}

// runShell is the program "sh". It takes -c and a script, or reads the script from its input.
func runShell(ctx context.Context, p *Process) int {
	script := io.Reader(p.Stdin)
	if len(p.Args) > 2 && p.Args[1] == "-c" {
		script = strings.NewReader(p.Args[2])
	}
	sh := &shell{Process: p, vars: map[string]string{"0": "sh"}}
	if len(p.Args) > 3 {
		for i, arg := range p.Args[3:] {
			sh.vars[fmt.Sprint(i)] = arg
		}
	}
	stopped := false
	syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).StmtsSeq(script)(func(stmt *syntax.Stmt, err error) bool {
		switch {
		case stopped: // the parser may come once more after it was told to end
		case err != nil:
			fmt.Fprintln(p.Stderr, "sh:", err)
			sh.code, stopped = 2, true
		default:
			sh.stmt(ctx, stmt)
			stopped = sh.exit || ctx.Err() != nil
		}
		return !stopped
	})
	return sh.code
}

func (sh *shell) stmts(ctx context.Context, list []*syntax.Stmt) {
	for _, s := range list {
		if sh.exit || ctx.Err() != nil {
			return
		}
		sh.stmt(ctx, s)
	}
}

func (sh *shell) stmt(ctx context.Context, s *syntax.Stmt) {
	inner, closers, err := sh.redirect(s.Redirs)
	if err != nil {
		fmt.Fprintln(sh.Stderr, "sh:", err)
		sh.code = 1
		return
	}
	defer func() {
		for _, c := range closers {
			c()
		}
	}()
	if s.Background {
		sub := inner.sub()
		sh.life.spawn(func() { sub.cmd(ctx, s.Cmd) })
		sh.code = 0
		return
	}
	inner.cmd(ctx, s.Cmd)
	sh.code, sh.exit = inner.code, inner.exit
	if s.Negated {
		if sh.code == 0 {
			sh.code = 1
		} else {
			sh.code = 0
		}
	}
}

// sub is a copy whose variables and streams may change by themselves.
func (sh *shell) sub() *shell {
	proc := *sh.Process
	vars := make(map[string]string, len(sh.vars))
	for k, v := range sh.vars {
		vars[k] = v
	}
	return &shell{Process: &proc, vars: vars, code: sh.code}
}

// redirect returns a shell with other streams; it shares the variables.
func (sh *shell) redirect(redirs []*syntax.Redirect) (*shell, []func(), error) {
	if len(redirs) == 0 {
		return sh, nil, nil
	}
	proc := *sh.Process
	inner := &shell{Process: &proc, vars: sh.vars, code: sh.code}
	var closers []func()
	for _, r := range redirs {
		target, err := expand.Literal(sh.config(), r.Word)
		if err != nil {
			return nil, closers, err
		}
		toErr := r.N != nil && r.N.Value == "2"
		var w io.Writer
		switch {
		case r.Op == syntax.RdrIn:
			data, err := sh.files.read(sh.abs(target))
			if err != nil {
				return nil, closers, err
			}
			proc.Stdin = strings.NewReader(string(data))
			continue
		case r.Op == syntax.DplOut && target == "2":
			w = proc.Stderr
		case r.Op == syntax.DplOut && target == "1":
			w = proc.Stdout
		case target == "/dev/null":
			w = io.Discard
		case r.Op == syntax.RdrOut, r.Op == syntax.AppOut:
			f := &fileWriter{files: sh.files, path: sh.abs(target), add: r.Op == syntax.AppOut}
			closers = append(closers, f.close)
			w = f
		default:
			return nil, closers, fmt.Errorf("unknown redirection %s", r.Op)
		}
		if toErr {
			proc.Stderr = w
		} else {
			proc.Stdout = w
		}
	}
	return inner, closers, nil
}

func (sh *shell) cmd(ctx context.Context, c syntax.Command) {
	switch c := c.(type) {
	case *syntax.CallExpr:
		sh.call(ctx, c)
	case *syntax.Block:
		sh.stmts(ctx, c.Stmts)
	case *syntax.Subshell:
		sub := sh.sub()
		sub.stmts(ctx, c.Stmts)
		sh.code = sub.code
	case *syntax.BinaryCmd:
		sh.binary(ctx, c)
	case *syntax.IfClause:
		sh.branch(ctx, c)
	case *syntax.WhileClause:
		for !sh.exit && ctx.Err() == nil {
			sh.stmts(ctx, c.Cond)
			if (sh.code == 0) == c.Until || sh.exit {
				break
			}
			sh.stmts(ctx, c.Do)
		}
	case *syntax.ForClause:
		loop, ok := c.Loop.(*syntax.WordIter)
		if !ok {
			sh.fail("unknown loop")
			return
		}
		words, err := expand.Fields(sh.config(), loop.Items...)
		if err != nil {
			sh.fail(err.Error())
			return
		}
		for _, word := range words {
			sh.vars[loop.Name.Value] = word
			if sh.stmts(ctx, c.Do); sh.exit || ctx.Err() != nil {
				return
			}
		}
	case nil:
	default:
		sh.fail(fmt.Sprintf("unknown syntax %T", c))
	}
}

func (sh *shell) branch(ctx context.Context, c *syntax.IfClause) {
	if len(c.Cond) > 0 { // an else has none
		if sh.stmts(ctx, c.Cond); sh.exit {
			return
		}
		if sh.code != 0 {
			sh.code = 0
			if c.Else != nil {
				sh.branch(ctx, c.Else)
			}
			return
		}
	}
	sh.stmts(ctx, c.Then)
}

func (sh *shell) binary(ctx context.Context, c *syntax.BinaryCmd) {
	if c.Op == syntax.Pipe {
		r, w := io.Pipe()
		left, right := sh.sub(), sh.sub()
		left.Stdout, right.Stdin = w, r
		var wait sync.WaitGroup
		wait.Go(func() {
			left.stmt(ctx, c.X)
			w.Close()
		})
		right.stmt(ctx, c.Y)
		r.Close()
		wait.Wait()
		sh.code = right.code
		return
	}
	if sh.stmt(ctx, c.X); sh.exit || (sh.code == 0) != (c.Op == syntax.AndStmt) {
		return
	}
	sh.stmt(ctx, c.Y)
}

func (sh *shell) call(ctx context.Context, c *syntax.CallExpr) {
	args, err := expand.Fields(sh.config(), c.Args...)
	if err != nil {
		sh.fail(err.Error())
		return
	}
	for _, a := range c.Assigns {
		value, err := expand.Literal(sh.config(), a.Value)
		if err != nil {
			sh.fail(err.Error())
			return
		}
		sh.vars[a.Name.Value] = value
	}
	if len(args) == 0 {
		sh.code = 0
		return
	}
	switch args[0] {
	case "exit":
		sh.exit = true
		if len(args) > 1 {
			sh.code = number(args[1])
		}
	case "cd":
		if len(args) > 1 {
			sh.Dir = sh.abs(args[1])
		}
		sh.code = 0
	case "trap": // only to ignore: trap '' HUP
		if len(args) > 2 && args[1] == "" {
			for _, name := range args[2:] {
				if n, ok := signalNumber(name); ok {
					sh.Ignore(n)
				}
			}
		}
		sh.code = 0
	case "exec", "command":
		args = args[1:]
		fallthrough
	default:
		program := builtins()[baseCommand(args)]
		if program == nil {
			program = notFound
		}
		proc := *sh.Process
		proc.Args = args
		sh.code = program(ctx, &proc)
	}
}

func (sh *shell) fail(text string) {
	fmt.Fprintln(sh.Stderr, "sh:", text)
	sh.code = 2
}

func (sh *shell) abs(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(sh.Dir, name)
}

func (sh *shell) config() *expand.Config {
	return &expand.Config{
		Env: expand.FuncEnviron(func(key string) string {
			switch key {
			case "?":
				return fmt.Sprint(sh.code)
			case "$":
				return "1"
			case "PWD":
				return sh.Dir
			}
			if v, ok := sh.vars[key]; ok {
				return v
			}
			return sh.Getenv(key)
		}),
		CmdSubst: func(w io.Writer, c *syntax.CmdSubst) error {
			sub := sh.sub()
			sub.Stdout = w
			sub.stmts(context.Background(), c.Stmts)
			return nil
		},
	}
}

// errClosed is what a write to a closed file gets.
var errClosed = errors.New("file closed")

// A fileWriter is an open file of a container; its content is there when it is closed.
type fileWriter struct {
	files *files
	path  string
	add   bool
	data  []byte
	done  bool
}

func (f *fileWriter) Write(p []byte) (int, error) {
	if f.done {
		return 0, errClosed
	}
	f.data = append(f.data, p...)
	return len(p), nil
}

func (f *fileWriter) close() {
	f.done = true
	data := f.data
	if f.add {
		if old, err := f.files.read(f.path); err == nil {
			data = append(old, data...)
		}
	}
	f.files.write(f.path, data)
}
