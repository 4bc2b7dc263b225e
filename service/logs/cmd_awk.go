package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/benhoyt/goawk/parser"
)

var awkOptions = optionTable{short: "F:v:"}

// awk runs a program with everything switched off that reaches beyond its input: commands, pipes, files to write and
// files to read. The named files are its standard input, one after another, so NR goes on and FILENAME is empty.
func awk(ctx context.Context, e *env, args []Word) (int, error) {
	// The options of awk end at the program: what follows may begin with a dash.
	split := 0
	for split < len(args) && strings.HasPrefix(args[split].Text, "-") && args[split].Text != "-" && args[split].Text != "--" {
		if t := args[split].Text; t == "-F" || t == "-v" {
			split++
		}
		split++
	}
	split = min(split, len(args))
	opts, _, err := awkOptions.parse("awk", args[:split], nil)
	if err != nil {
		return 2, err
	}
	rest := args[split:]
	if len(rest) > 0 && rest[0].Text == "--" {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return 2, &Refusal{Reason: "awk: no program given"}
	}
	source, operands := rest[0], rest[1:]
	var vars []string
	for _, o := range opts {
		if o.name == "F" {
			vars = append(vars, "FS", o.value)
			continue
		}
		name, value, ok := strings.Cut(o.value, "=")
		if !ok {
			return 2, &Refusal{Reason: fmt.Sprintf("awk: -v %q: want name=value", o.value)}
		}
		vars = append(vars, name, value)
	}
	if _, err := parser.ParseProgram([]byte(source.Text), nil); err != nil {
		return 2, &Refusal{Reason: "awk: " + err.Error(), Column: source.Column}
	}
	if e.service.cfg.Awk.Path == "" {
		return 2, &Refusal{Reason: "awk: this node has no process to run it in"}
	}
	in := &operandReader{ctx: ctx, e: e}
	if len(operands) > 0 || e.stdin != nil {
		if in.names, err = e.expand(operands); err != nil {
			return 2, err
		}
	}
	defer in.close()
	return e.runWorker(ctx, workerTask{Program: source.Text, Vars: vars, Memory: max(e.limits.SortMemory, 0)}, in)
}

// An operandReader reads the named files one after another.
type operandReader struct {
	ctx   context.Context
	e     *env
	names []string
	open  io.ReadCloser
	code  int
	err   error // one that ends the command
}

func (o *operandReader) Read(p []byte) (int, error) {
	for {
		if o.open == nil {
			if len(o.names) == 0 {
				return 0, io.EOF
			}
			name := o.names[0]
			o.names = o.names[1:]
			f, err := o.e.open(o.ctx, name)
			if err != nil {
				o.e.errf("%s: %s", name, reason(err))
				o.code = 2
				continue
			}
			o.open = f
		}
		n, err := o.open.Read(p)
		if n > 0 {
			return n, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			o.err = err
			return 0, io.EOF
		}
		if err != nil {
			o.close()
		}
	}
}

func (o *operandReader) close() {
	if o.open != nil {
		_ = o.open.Close() // only read from
		o.open = nil
	}
}
