package logs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// MaxLine is the longest command line that is parsed, in bytes.
const MaxLine = 16 << 10

// A Refusal says why a command line is not run.
type Refusal struct {
	Reason string
	Column int // 1-based byte position in the line; 0 for the line as a whole
}

func (r *Refusal) Error() string {
	if r.Column > 0 {
		return fmt.Sprintf("refused: %s (column %d)", r.Reason, r.Column)
	}
	return "refused: " + r.Reason
}

func refuse(pos syntax.Pos, format string, args ...any) error {
	column := 0
	if pos.IsValid() {
		column = int(pos.Col())
	}
	return &Refusal{Reason: fmt.Sprintf(format, args...), Column: column}
}

// A Word is one argument after quote removal.
type Word struct {
	Text string
	// Pattern is Text as a path.Match pattern if the word held an unquoted *, ? or [; else "".
	Pattern string
	Column  int
}

// A Command is one stage: a name and its arguments.
type Command struct {
	Name   string
	Args   []Word
	Column int
}

// A Pipeline is what one command line asks for: stages from left to right, and for the append form of echo the file
// that its output goes to.
type Pipeline struct {
	Stages []Command
	Append *Word
}

// Parse reads one command line. Everything that a shell would do beyond running a pipeline of simple commands is
// refused: lists, background jobs, substitutions, expansions, assignments, redirections other than the >> of echo.
// Whether the commands are allowed is decided later, by [Service].
func Parse(line string) (*Pipeline, error) {
	if len(line) > MaxLine {
		return nil, &Refusal{Reason: fmt.Sprintf("the command line is longer than %d bytes", MaxLine)}
	}
	if i := strings.IndexAny(line, "\n\r\x00"); i >= 0 {
		return nil, &Refusal{Reason: "a command is one line", Column: i + 1}
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash), syntax.RecoverErrors(0)).Parse(strings.NewReader(line), "")
	if err != nil {
		var perr syntax.ParseError
		if errors.As(err, &perr) {
			return nil, refuse(perr.Pos, "%s", perr.Text)
		}
		var lerr syntax.LangError
		if errors.As(err, &lerr) {
			return nil, refuse(lerr.Pos, "%s is not understood", lerr.Feature)
		}
		return nil, &Refusal{Reason: err.Error()}
	}
	if len(file.Stmts) == 0 {
		return nil, &Refusal{Reason: "the command line is empty"}
	}
	p := &Pipeline{}
	if err := p.statement(file.Stmts[0]); err != nil {
		return nil, err
	}
	if len(file.Stmts) > 1 {
		return nil, refuse(file.Stmts[1].Pos(), "only one pipeline is run")
	}
	if p.Append != nil && (len(p.Stages) != 1 || p.Stages[0].Name != "echo") {
		return nil, &Refusal{Reason: "only echo appends with >>", Column: p.Append.Column}
	}
	return p, nil
}

func (p *Pipeline) statement(s *syntax.Stmt) error {
	switch {
	case s.Background:
		return refuse(s.Semicolon, "& (a background job) is not allowed")
	case s.Coprocess, s.Disown:
		return refuse(s.Semicolon, "a coprocess is not allowed")
	case s.Negated:
		return refuse(s.Position, "! is not allowed")
	case s.Semicolon.IsValid():
		return refuse(s.Semicolon, "only one pipeline is run, without ;")
	}
	for _, r := range s.Redirs {
		if err := p.redirect(r); err != nil {
			return err
		}
	}
	switch cmd := s.Cmd.(type) {
	case *syntax.CallExpr:
		return p.call(cmd)
	case *syntax.BinaryCmd:
		if cmd.Op != syntax.Pipe {
			return refuse(cmd.OpPos, "%s is not allowed, only |", cmd.Op)
		}
		if len(s.Redirs) > 0 {
			return refuse(s.Redirs[0].OpPos, "redirections of a pipeline are not allowed")
		}
		if err := p.statement(cmd.X); err != nil {
			return err
		}
		return p.statement(cmd.Y)
	case nil:
		return refuse(s.Pos(), "a redirection without a command")
	default:
		return refuse(s.Pos(), "only simple commands and pipelines of them are allowed")
	}
}

func (p *Pipeline) redirect(r *syntax.Redirect) error {
	if r.Op != syntax.AppOut || r.N != nil {
		return refuse(r.OpPos, "redirection %s is not allowed", r.Op)
	}
	if p.Append != nil {
		return refuse(r.OpPos, "only one >> is allowed")
	}
	w, err := word(r.Word)
	if err != nil {
		return err
	}
	if w.Pattern != "" {
		return refuse(r.Word.Pos(), "a pattern cannot be appended to")
	}
	p.Append = &w
	return nil
}

func (p *Pipeline) call(c *syntax.CallExpr) error {
	if len(c.Assigns) > 0 {
		return refuse(c.Assigns[0].Pos(), "assignments are not allowed")
	}
	name, err := word(c.Args[0])
	if err != nil {
		return err
	}
	cmd := Command{Name: name.Text, Column: name.Column}
	for _, a := range c.Args[1:] {
		w, err := word(a)
		if err != nil {
			return err
		}
		cmd.Args = append(cmd.Args, w)
	}
	p.Stages = append(p.Stages, cmd)
	return nil
}

// word removes quotes. Parts that a shell would expand are refused, but for patterns of file names.
func word(w *syntax.Word) (Word, error) {
	var text, pattern strings.Builder
	glob := false
	quoted := func(s string) {
		text.WriteString(s)
		for _, r := range s {
			if strings.ContainsRune(`*?[]\`, r) {
				pattern.WriteByte('\\')
			}
			pattern.WriteRune(r)
		}
	}
	for i, part := range w.Parts {
		switch part := part.(type) {
		case *syntax.Lit:
			if err := literal(part, i == 0, &text, &pattern, &glob); err != nil {
				return Word{}, err
			}
		case *syntax.SglQuoted:
			if part.Dollar {
				return Word{}, refuse(part.Pos(), "$'...' is not allowed")
			}
			quoted(part.Value)
		case *syntax.DblQuoted:
			if part.Dollar {
				return Word{}, refuse(part.Pos(), `$"..." is not allowed`)
			}
			for _, inner := range part.Parts {
				lit, ok := inner.(*syntax.Lit)
				if !ok {
					return Word{}, expansion(inner)
				}
				quoted(unescapeDouble(lit.Value))
			}
		default:
			return Word{}, expansion(part)
		}
	}
	out := Word{Text: text.String(), Column: int(w.Pos().Col())}
	if glob {
		out.Pattern = pattern.String()
	}
	return out, nil
}

// literal takes an unquoted part of a word.
func literal(lit *syntax.Lit, first bool, text, pattern *strings.Builder, glob *bool) error {
	v := lit.Value
	if first && strings.HasPrefix(v, "~") {
		return refuse(lit.Pos(), "~ is not expanded; write the whole path")
	}
	for i := 0; i < len(v); i++ {
		switch c := v[i]; c {
		case '\\':
			i++
			if i == len(v) {
				return refuse(lit.End(), `a \ at the end`)
			}
			text.WriteByte(v[i])
			pattern.WriteByte('\\')
			pattern.WriteByte(v[i])
		case '*', '?', '[':
			*glob = true
			text.WriteByte(c)
			pattern.WriteByte(c)
		case '{':
			if end := strings.IndexByte(v[i:], '}'); end > 0 && (strings.Contains(v[i:i+end], ",") || strings.Contains(v[i:i+end], "..")) {
				return refuse(lit.Pos(), "{...} is not expanded; quote it")
			}
			text.WriteByte(c)
			pattern.WriteByte(c)
		default:
			text.WriteByte(c)
			pattern.WriteByte(c)
		}
	}
	return nil
}

// unescapeDouble removes the backslashes that have a meaning between double quotes.
func unescapeDouble(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && slices.Contains([]byte("$`\"\\"), s[i+1]) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func expansion(n syntax.Node) error {
	what := "an expansion"
	switch n := n.(type) {
	case *syntax.ParamExp:
		what = "a variable"
	case *syntax.CmdSubst:
		what = "a command substitution"
		if n.Backquotes {
			what = "a command substitution (`)"
		}
	case *syntax.ArithmExp:
		what = "an arithmetic expansion"
	case *syntax.ProcSubst:
		what = "a process substitution"
	case *syntax.ExtGlob:
		what = "an extended pattern"
	}
	return refuse(n.Pos(), "%s is not allowed", what)
}
