package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"gopkg.in/yaml.v3"
)

// The values of --output.
const (
	FormatTable = "table"
	FormatJSON  = "json"
	FormatYAML  = "yaml"
)

// Formats lists the values of --output.
func Formats() []string { return []string{FormatTable, FormatJSON, FormatYAML} }

// A Printer writes results in the form that the user asked for.
type Printer struct {
	Out    io.Writer
	Format string // one of Formats; "" is a table
	Quiet  bool   // identifiers only
	Color  bool
	Now    func() time.Time
	Width  func() int // of the terminal, 0 if there is none; nil is none
}

// Structured reports whether a program reads the output.
func (p *Printer) Structured() bool { return p.Format == FormatJSON || p.Format == FormatYAML }

// Print writes v as JSON or YAML, or calls human for people.
func (p *Printer) Print(v any, human func() error) error {
	switch p.Format {
	case FormatJSON:
		return WriteJSON(p.Out, v)
	case FormatYAML:
		return WriteYAML(p.Out, v)
	default:
		return human()
	}
}

// Stream writes one element of an endless list: a JSON object a line, or a YAML document.
func (p *Printer) Stream(v any, human func() error) error {
	switch p.Format {
	case FormatJSON:
		enc := json.NewEncoder(p.Out)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case FormatYAML:
		if _, err := io.WriteString(p.Out, "---\n"); err != nil {
			return err
		}
		return WriteYAML(p.Out, v)
	default:
		return human()
	}
}

// WriteJSON writes v indented by two spaces, with a final newline.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// WriteYAML writes v with the keys and the order of its JSON form.
func WriteYAML(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b.Bytes(), &doc); err != nil { // JSON is YAML
		return fmt.Errorf("convert to yaml: %w", err)
	}
	blockStyle(&doc)
	out := yaml.NewEncoder(w)
	out.SetIndent(2)
	if err := out.Encode(&doc); err != nil {
		return err
	}
	return out.Close()
}

// blockStyle takes JSON's brackets and quotes off; the encoder puts quotes back where a string needs them.
func blockStyle(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode || len(n.Content) > 0 {
		n.Style = 0
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}
