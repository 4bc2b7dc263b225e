package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

var uniqOptions = optionTable{
	short: "cdDuif:s:w:",
	long: map[string]string{
		"count": "c", "repeated": "d", "all-repeated": "D", "unique": "u", "ignore-case": "i", "skip-fields": "f=", "skip-chars": "s=", "check-chars": "w=",
	},
}

type uniqSpec struct {
	count, repeated, allRepeated, unique, fold bool
	skipFields, skipChars                      int64
	width                                      int64 // -1: all
}

func uniq(ctx context.Context, e *env, args []Word) (int, error) {
	opts, operands, err := uniqOptions.parse("uniq", args, nil)
	if err != nil {
		return 2, err
	}
	if len(operands) > 1 {
		return 2, &Refusal{Reason: "uniq: an output file is not allowed", Column: operands[1].Column}
	}
	u := uniqSpec{width: -1}
	for _, o := range opts {
		switch o.name {
		case "c":
			u.count = true
		case "d":
			u.repeated = true
		case "D":
			u.allRepeated = true
		case "u":
			u.unique = true
		case "i":
			u.fold = true
		default:
			n, err := quantity("uniq", o.value)
			if err != nil {
				return 2, err
			}
			switch o.name {
			case "f":
				u.skipFields = n
			case "s":
				u.skipChars = n
			case "w":
				u.width = n
			}
		}
	}
	var group []byte
	var n int64
	flush := func() error {
		if n == 0 || u.repeated && n < 2 || u.unique && n > 1 || u.allRepeated {
			return nil
		}
		if u.count {
			fmt.Fprintf(e.out, "%7d ", n)
		}
		_, _ = e.out.Write(group)
		return e.out.WriteByte('\n')
	}
	code, err := e.eachFile(ctx, operands, func(_ string, r io.Reader) error {
		return eachLine(r, e.out.Flush, func(line []byte) error {
			line = chomp(line)
			if n > 0 && u.equal(u.key(group), u.key(line)) {
				n++
				if u.allRepeated {
					if n == 2 {
						_, _ = e.out.Write(group)
						_ = e.out.WriteByte('\n')
					}
					_, _ = e.out.Write(line)
					return e.out.WriteByte('\n')
				}
				return nil
			}
			if err := flush(); err != nil {
				return err
			}
			group, n = append(group[:0], line...), 1
			return nil
		})
	})
	if err != nil {
		return 1, err
	}
	return code, flush()
}

func (u *uniqSpec) key(line []byte) []byte {
	for range u.skipFields {
		i := 0
		for i < len(line) && blank(line[i]) {
			i++
		}
		for i < len(line) && !blank(line[i]) {
			i++
		}
		line = line[i:]
	}
	line = line[min(u.skipChars, int64(len(line))):]
	if u.width >= 0 {
		line = line[:min(u.width, int64(len(line)))]
	}
	return line
}

func (u *uniqSpec) equal(a, b []byte) bool {
	if u.fold {
		return bytes.EqualFold(a, b)
	}
	return bytes.Equal(a, b)
}
