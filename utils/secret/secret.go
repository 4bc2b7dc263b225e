// Package secret holds values that must not reach a log, a terminal or a JSON document by accident.
package secret

import (
	"crypto/subtle"
	"fmt"
	"strings"
)

// Redacted is what a secret that holds something prints as.
const Redacted = "[redacted]"

// String is a text that prints as [Redacted] through fmt with any verb, encoding/json, YAML and loggers; an empty one
// prints as nothing, so that "not set" can be told apart. The zero value is empty. Only [String.Reveal] gives the text.
//
// The text sits behind a pointer, so that a formatter which walks unexported fields by reflection, where no method
// can be called, finds an address and not the text. Two Strings are therefore compared with Equal and not with ==.
type String struct{ text *string }

// New returns s as a secret.
func New(s string) String {
	if s == "" {
		return String{}
	}
	return String{text: &s}
}

// Reveal returns the text itself. Each call is a place to look at in a review.
func (s String) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether s holds nothing.
func (s String) IsZero() bool { return s.text == nil || *s.text == "" }

// Equal compares the texts in a time that depends on their lengths alone.
func (s String) Equal(t String) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(t.Reveal())) == 1
}

// String returns [Redacted], or nothing if s is empty.
func (s String) String() string {
	if s.IsZero() {
		return ""
	}
	return Redacted
}

// GoString is what %#v prints.
func (s String) GoString() string { return "secret.String(" + s.String() + ")" }

// Format prints the same as String for every verb but %#v: a verb that fmt does not know for strings would print the
// value to complain about it.
func (s String) Format(f fmt.State, verb rune) {
	text := s.String()
	switch {
	case verb == 'v' && f.Flag('#'):
		text = s.GoString()
	case verb == 'q':
		text = `"` + text + `"`
	}
	_, _ = f.Write([]byte(text))
}

// MarshalText returns what String does, so JSON, YAML and logfmt are redacted as well. A file that shall hold the
// secret is written from [String.Reveal].
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes b as the secret.
func (s *String) UnmarshalText(b []byte) error {
	*s = New(string(b))
	return nil
}

// Mask returns text with every occurrence of the secrets replaced by [Redacted]: for messages that were made elsewhere.
// Secrets shorter than four bytes are left alone, they would tear ordinary words apart.
func Mask(text string, secrets ...String) string {
	for _, s := range secrets {
		if v := s.Reveal(); len(v) >= 4 {
			text = strings.ReplaceAll(text, v, Redacted)
		}
	}
	return text
}
