package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"gopkg.in/yaml.v3"
)

const maxConfigFile = 1 << 20

// A fileValue is a setting as the file has it.
type fileValue struct {
	text string
	line int
}

// readFile finds and reads the configuration file.
func (l *loader) readFile(path string) {
	must := path != ""
	if !must {
		if path = l.getenv("DROVER_CONFIG"); path != "" {
			must = true
		} else {
			path = defaultConfigFile
		}
	}
	b, err := readLimited(path, maxConfigFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !must:
		return
	case err != nil:
		l.problem("file %s: %v", path, bare(err))
		return
	}
	l.c.File = path
	values, problems := parseConfigFile(b)
	l.file = values
	for _, p := range problems {
		l.problem("file %s:%d: %s", path, p.line, p.text)
	}
	l.checkFile(path)
}

// checkFile warns of what is no error.
func (l *loader) checkFile(path string) {
	open := false
	if fi, err := os.Stat(path); err == nil {
		open = fi.Mode().Perm()&0o077 != 0
	}
	for _, k := range configKeys() {
		v, ok := l.file[k.name]
		switch {
		case !ok:
		case k.kind == kindUnused:
			l.c.Warnings = append(l.c.Warnings, fmt.Sprintf("%s:%d: %s has no effect", path, v.line, k.name))
		case k.secret && open && v.text != "":
			l.c.Warnings = append(l.c.Warnings, fmt.Sprintf("%s:%d: others can read %s: chmod 600 %s", path, v.line, k.name, path))
		}
	}
}

// bare drops the path of a file error: the message has it already.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// A fileProblem is what is wrong at a line.
type fileProblem struct {
	line int
	text string
}

// parseConfigFile reads a YAML document into texts by key: mappings are paths, "a.b: c" is short for nested ones. It
// looks at the document's nodes and not at decoded values, since only nodes know their lines.
func parseConfigFile(b []byte) (map[string]fileValue, []fileProblem) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF): // nothing but comments
		return map[string]fileValue{}, nil
	case err != nil:
		return nil, []fileProblem{yamlProblem(err)}
	}
	p := &fileParser{values: map[string]fileValue{}, keys: map[string]configKey{}}
	for _, k := range configKeys() {
		p.keys[k.name] = k
	}
	if len(doc.Content) > 0 {
		p.mapping("", doc.Content[0])
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		p.problem(&more, "a second document")
	} else if !errors.Is(err, io.EOF) {
		p.problems = append(p.problems, yamlProblem(err))
	}
	return p.values, p.problems
}

// yamlProblem takes the line out of a decoder's error.
func yamlProblem(err error) fileProblem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); m != nil {
		_, _ = fmt.Sscan(m[1], &line)
		text = text[len(m[0]):]
	}
	return fileProblem{line: line, text: "not YAML: " + text}
}

type fileParser struct {
	keys     map[string]configKey
	values   map[string]fileValue
	problems []fileProblem
}

func (p *fileParser) problem(n *yaml.Node, format string, args ...any) {
	p.problems = append(p.problems, fileProblem{line: n.Line, text: fmt.Sprintf(format, args...)})
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (p *fileParser) mapping(prefix string, n *yaml.Node) {
	switch {
	case isNull(n):
		return
	case n.Kind != yaml.MappingNode:
		where := prefix
		if where == "" {
			where = "the file"
		}
		p.problem(n, "%s: want a mapping", where)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Kind != yaml.ScalarNode || name.Tag != "!!str" {
			p.problem(name, "a key that is not a plain word")
			continue
		}
		path := name.Value
		if prefix != "" {
			path = prefix + "." + path
		}
		k, known := p.keys[path]
		switch {
		case known:
			p.value(k, name.Line, value)
		case p.isSection(path):
			p.mapping(path, value)
		default:
			p.problem(name, "unknown key %q%s", short(path), p.suggest(path))
		}
	}
}

func (p *fileParser) isSection(path string) bool {
	for name := range p.keys {
		if strings.HasPrefix(name, path+".") {
			return true
		}
	}
	return false
}

func (p *fileParser) value(k configKey, line int, n *yaml.Node) {
	if old, ok := p.values[k.name]; ok {
		p.problem(n, "%s is set twice, first in line %d", k.name, old.line)
		return
	}
	text, err := nodeText(k.kind, n)
	if err != nil {
		p.problem(n, "%s: %v", k.name, err)
		return
	}
	p.values[k.name] = fileValue{text: text, line: line}
}

// nodeText gives a node the form that its setting has in a variable or a flag.
func nodeText(want kind, n *yaml.Node) (string, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return "", fmt.Errorf("aliases are not followed here")
	case isNull(n):
		return "", nil
	case n.Kind == yaml.ScalarNode:
		return scalarText(n)
	case n.Kind == yaml.SequenceNode && want == kindList:
		var words []string
		for _, item := range n.Content {
			word, err := scalarText(item)
			if err == nil && (word == "" || strings.ContainsAny(word, ", \t\n")) {
				err = fmt.Errorf("an element that is not one word")
			}
			if err != nil {
				return "", err
			}
			words = append(words, word)
		}
		return strings.Join(words, ","), nil
	case n.Kind == yaml.MappingNode && want == kindLabels:
		q := url.Values{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, err := scalarText(n.Content[i])
			if err != nil {
				return "", err
			}
			if q.Has(name) {
				return "", fmt.Errorf("label %q twice", short(name))
			}
			value, err := nodeText(kindText, n.Content[i+1])
			if err != nil {
				return "", err
			}
			q.Set(name, value)
		}
		return q.Encode(), nil
	case want == kindList:
		return "", fmt.Errorf("want a list")
	case want == kindLabels:
		return "", fmt.Errorf("want a mapping of labels")
	}
	return "", fmt.Errorf("want one value")
}

func scalarText(n *yaml.Node) (string, error) {
	if plain := []string{"!!str", "!!int", "!!float", "!!bool", "!!timestamp"}; n.Kind != yaml.ScalarNode || !slices.Contains(plain, n.Tag) {
		return "", fmt.Errorf("want a plain value")
	}
	return n.Value, nil
}

// suggest returns the known key that is nearest to an unknown one, if it is near.
func (p *fileParser) suggest(path string) string {
	if len(path) > 100 {
		return "" // much longer than any key
	}
	best, least := "", 4
	for name := range p.keys {
		if d := levenshtein.ComputeDistance(path, name); d < least || d == least && best != "" && name < best {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

func short(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
