package logs

import (
	"fmt"
	"strings"
)

// An option is one option of a command line, in the order given.
type option struct {
	name  string // "n" or the long name without dashes
	value string
}

// optionTable says which options a command takes: short ones as a getopt string ("n:" takes a value), long ones by
// name, each mapped to the short one that it means ("" if there is none) with a trailing "=" if it takes a value and
// "?" if it may.
type optionTable struct {
	short string
	long  map[string]string
}

// parse splits the arguments as GNU programs do: options and operands in any order, short ones in clusters, "--" ends
// them. digits, if not nil, takes an obsolete numeric option such as -20.
func (t optionTable) parse(cmd string, args []Word, digits func(string) []option) (opts []option, operands []Word, err error) {
	bad := func(w Word, format string, a ...any) error {
		return &Refusal{Reason: cmd + ": " + fmt.Sprintf(format, a...), Column: w.Column}
	}
	for i := 0; i < len(args); i++ {
		w := args[i]
		switch {
		case w.Text == "--":
			return opts, append(operands, args[i+1:]...), nil
		case w.Text == "-" || !strings.HasPrefix(w.Text, "-"):
			operands = append(operands, w)
		case strings.HasPrefix(w.Text, "--"):
			name, value, hasValue := strings.Cut(w.Text[2:], "=")
			kind, ok := t.long[name]
			if !ok {
				return nil, nil, bad(w, "option --%s is not allowed", name)
			}
			short := strings.TrimRight(kind, "=?")
			if short == "" {
				short = name
			}
			switch {
			case strings.HasSuffix(kind, "="):
				if !hasValue {
					if i++; i == len(args) {
						return nil, nil, bad(w, "option --%s needs a value", name)
					}
					value = args[i].Text
				}
			case hasValue && !strings.HasSuffix(kind, "?"):
				return nil, nil, bad(w, "option --%s takes no value", name)
			}
			opts = append(opts, option{short, value})
		case digits != nil && w.Text[1] >= '0' && w.Text[1] <= '9':
			opts = append(opts, digits(w.Text[1:])...)
		default:
			for rest := w.Text[1:]; rest != ""; {
				c := rest[:1]
				rest = rest[1:]
				at := strings.Index(t.short, c)
				if at < 0 || c == ":" {
					return nil, nil, bad(w, "option -%s is not allowed", c)
				}
				if at+1 == len(t.short) || t.short[at+1] != ':' {
					opts = append(opts, option{name: c})
					continue
				}
				if rest == "" {
					if i++; i == len(args) {
						return nil, nil, bad(w, "option -%s needs a value", c)
					}
					rest = args[i].Text
				}
				opts = append(opts, option{c, rest})
				rest = ""
			}
		}
	}
	return opts, operands, nil
}
