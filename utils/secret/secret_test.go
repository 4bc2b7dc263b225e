package secret_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/droverhq/drover/utils/secret"
)

const plain = "s3cr3t-value"

type holder struct {
	Name   string
	Key    secret.String
	hidden secret.String
}

func TestNothingPrintsTheText(t *testing.T) {
	s := secret.New(plain)
	h := holder{Name: "n", Key: s, hidden: s}
	js, err := json.Marshal(map[string]any{"s": s, "p": &s, "h": h})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{string(js), fmt.Sprint(s), fmt.Sprint(&s), s.String(), s.GoString(), fmt.Sprint(h), fmt.Sprint(&h), fmt.Errorf("x %w", fmt.Errorf("%v", s)).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%p", "%U", "%-40s", "%.3s"} {
		out = append(out, fmt.Sprintf(verb, s), fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h), fmt.Sprintf(verb, []secret.String{s}), fmt.Sprintf(verb, map[string]secret.String{"k": s}))
	}
	for _, o := range out {
		if strings.Contains(o, plain) || strings.Contains(o, "s3c") || strings.Contains(strings.ToLower(o), fmt.Sprintf("%x", plain)) {
			t.Errorf("printed: %s", o)
		}
	}
	for _, want := range []string{fmt.Sprintf("%v", s), fmt.Sprintf("%s", s), fmt.Sprintf("%d", s)} {
		if want != secret.Redacted {
			t.Errorf("got %q, want %q", want, secret.Redacted)
		}
	}
}

func TestTextComesBack(t *testing.T) {
	s := secret.New(plain)
	if s.Reveal() != plain || s.IsZero() {
		t.Fatalf("Reveal: %q", s.Reveal())
	}
	var in struct{ Key secret.String }
	if err := json.Unmarshal([]byte(`{"Key":"`+plain+`"}`), &in); err != nil {
		t.Fatal(err)
	}
	if !in.Key.Equal(s) || in.Key.Equal(secret.New("other")) || in.Key.Equal(secret.String{}) {
		t.Error("Equal does not compare the texts")
	}
}

func TestEmptyIsTold(t *testing.T) {
	for _, s := range []secret.String{{}, secret.New("")} {
		if !s.IsZero() || s.Reveal() != "" || s.String() != "" || fmt.Sprint(s) != "" {
			t.Errorf("an empty secret prints %q", s.String())
		}
	}
}

func TestMask(t *testing.T) {
	got := secret.Mask("GET http://h/"+plain+"?k="+plain+" abc", secret.New(plain), secret.New("abc"), secret.String{})
	if want := "GET http://h/[redacted]?k=[redacted] abc"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
