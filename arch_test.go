package main

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/droverhq/drover"

// layers is the import law: what a folder may import of this module. The longest matching folder rules a package, and
// "x/*" stands for every folder below x. Test files may import what mayInTests adds.
var layers = []struct {
	folder     string
	may        []string
	mayInTests []string
	why        string
}{
	{folder: "utils", why: "leaf helpers: knowing our domain would make them a dumping ground and a source of cycles"},
	{folder: "events/wire", why: "the frames are shared by agent and server, so they know neither"},
	{folder: "events/tunnel", may: []string{"utils/*"}, why: "byte streams are shared by agent and server, so they know neither"},
	{folder: "runtime", why: "the vocabulary of engines knows no engine", mayInTests: []string{"runtime/*"}},
	{folder: "hostinfo", why: "collectors read files and know nothing of transports or engines"},
	{folder: "web", why: "assets without logic"},
	{folder: "deploy", why: "manifests, and the tests that read them"},

	{
		folder: "runtime/docker", may: []string{"runtime", "utils/*"}, mayInTests: []string{"runtime/*"},
		why: "an engine speaks the vocabulary and nothing above it",
	},
	{
		folder: "runtime/cri", may: []string{"runtime", "utils/*"}, mayInTests: []string{"runtime/*"},
		why: "an engine speaks the vocabulary and nothing above it",
	},
	{
		folder: "runtime/fake", may: []string{"runtime"}, mayInTests: []string{"runtime/*"},
		why: "an engine speaks the vocabulary and nothing above it",
	},
	{
		folder: "runtime/multi", may: []string{"runtime"}, mayInTests: []string{"runtime/fake"},
		why: "several engines are one engine: it speaks the vocabulary",
	},
	{folder: "runtime/pods", may: []string{"runtime", "utils/*"}, mayInTests: []string{"runtime/*"}, why: "pods are made of containers"},
	{folder: "runtime/imagetar", may: []string{"runtime"}, why: "streams of files know no engine and no transport"},
	{folder: "runtime/runtimetest", may: []string{"runtime"}, why: "the conformance suite knows the vocabulary alone"},
	{
		folder: "events", may: []string{"events/wire", "utils/*"}, mayInTests: []string{"events/*"},
		why: "the control channel carries work and does none: it knows no handler and no engine",
	},
	{folder: "events/eventstest", may: []string{"events/wire", "utils/*"}, why: "a fake server speaks frames alone"},
	{folder: "register", may: []string{"utils/*"}, why: "first contact happens before there is a channel or an engine"},

	{
		folder: "ping", may: []string{"events", "events/wire", "runtime", "hostinfo", "utils/*"}, mayInTests: []string{"runtime/fake", "runtime/docker"},
		why: "a handler sees the vocabulary, never an engine",
	},
	{
		folder: "handlers", may: []string{"events", "events/wire", "runtime", "runtime/imagetar", "runtime/pods", "hostinfo", "handlers/*", "utils/*"},
		mayInTests: []string{"runtime/fake", "runtime/docker", "service"},
		why:        "a handler sees the vocabulary, never an engine",
	},
	{
		folder: "service", may: []string{"events/tunnel", "runtime", "runtime/imagetar", "runtime/pods", "service/*", "utils/*"},
		mayInTests: []string{"runtime/fake", "runtime/docker", "runtime/cri", "runtime/cri/*", "runtime/multi"},
		why:        "streams see the vocabulary, never an engine",
	},
	{
		folder: "service/streamclient", may: []string{"runtime", "service", "service/*", "utils/*"},
		mayInTests: []string{"events/tunnel", "events/eventstest", "runtime/fake", "runtime/docker"},
		why:        "the other end of the streams shares their types with the service",
	},
	{
		folder: "server", may: []string{"events/wire", "events/tunnel", "server/*", "utils/*"},
		mayInTests: []string{"events", "events/*", "register", "web"},
		why:        "the control server speaks frames and knows nothing of what runs on a host",
	},

	{folder: "cli", may: []string{"*"}, why: "the composition root: the only place that names an engine or sees both agent and server"},
	{folder: "", may: []string{"cli"}, mayInTests: []string{"*"}, why: "main starts the command line and nothing else"},
}

// foreign says where a module of others may be imported. files caps how many non-test files of a folder do.
var foreign = []struct {
	prefix  string
	folders map[string]int // folder -> most non-test files that may import it; 0 is no cap
	tests   []string       // folders whose tests may import it too
	why     string
}{
	{
		prefix: "github.com/rancher/go-rancher", folders: map[string]int{"events": 1, "register": 1, "server": 0}, tests: []string{"cli"},
		why: "its calls take no context and its init reads the environment: one adapter a side (ADR 0004)",
	},
	{
		prefix: "github.com/docker/docker/", folders: map[string]int{"runtime/docker": 0},
		why: "dockerd's types end at the engine: moving to the client's successor shall be the work of one package",
	},
	{
		prefix: "github.com/moby/moby/", folders: map[string]int{"runtime/docker": 0},
		why: "dockerd's types end at the engine",
	},
	{
		prefix: "k8s.io/cri-api", folders: map[string]int{"runtime/cri": 0},
		why: "CRI's types end at the engine",
	},
	{
		prefix: "github.com/nats-io/", folders: map[string]int{"server": 0}, tests: []string{"cli"},
		why: "queues and state are the server's",
	},
	{
		prefix: "k8s.io/client-go/kubernetes", folders: nil,
		why: "the typed clientset doubles the binary (ADR 0006)",
	},
	{
		prefix: "github.com/spf13/", folders: map[string]int{"cli": 0, "": 0},
		why: "flags are read in cli alone",
	},
}

// environment lists the functions that only cli and main may call: everything else is given its configuration.
var environment = map[string]bool{
	"Getenv": true, "LookupEnv": true, "Environ": true, "ExpandEnv": true, "Setenv": true, "Unsetenv": true, "Exit": true,
}

// globalLogger lists logrus functions that log through the process-wide logger.
var globalLogger = map[string]bool{
	"Trace": true, "Debug": true, "Info": true, "Warn": true, "Warning": true, "Error": true, "Fatal": true, "Panic": true,
	"Tracef": true, "Debugf": true, "Infof": true, "Warnf": true, "Warningf": true, "Errorf": true, "Fatalf": true, "Panicf": true,
	"WithField": true, "WithFields": true, "WithError": true, "SetLevel": true, "SetOutput": true, "StandardLogger": true,
}

const maxLines = 600

type source struct {
	path   string // with slashes, from the module's root
	folder string // "" is the root
	test   bool
	lines  int
	text   string
	file   *ast.File
	fset   *token.FileSet
}

func (s *source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

// sources parses every Go file of the module. Folders that git ignores are not part of it.
func sources(t *testing.T) []*source {
	t.Helper()
	ignored := map[string]bool{".git": true}
	if b, err := os.ReadFile(".gitignore"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name := strings.TrimSpace(line); strings.HasPrefix(name, "/") && strings.HasSuffix(name, "/") {
				ignored[strings.Trim(name, "/")] = true
			}
		}
	}
	root := os.DirFS(".")
	var all []*source
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if ignored[p] || d.Name() == "testdata" {
				return fs.SkipDir
			}
			if p != "." {
				if _, err := fs.Stat(root, p+"/go.mod"); err == nil {
					return fs.SkipDir // a module of its own
				}
			}
			return nil
		case path.Ext(p) != ".go":
			return nil
		}
		b, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, b, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder := path.Dir(p)
		if folder == "." {
			folder = ""
		}
		all = append(all, &source{
			path: p, folder: folder, test: strings.HasSuffix(p, "_test.go"),
			lines: strings.Count(string(b), "\n"), text: string(b), file: f, fset: fset,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 3 {
		t.Fatalf("found %d Go files: the walk is broken", len(all))
	}
	return all
}

// under reports whether folder is parent or lies below it.
func under(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

// matches reports whether folder is one of patterns.
func matches(folder string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		base, below := strings.CutSuffix(p, "*")
		if below {
			return strings.HasPrefix(folder, base)
		}
		return folder == p
	})
}

func imports(s *source) map[string]*ast.ImportSpec {
	out := make(map[string]*ast.ImportSpec, len(s.file.Imports))
	for _, spec := range s.file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			out[p] = spec
		}
	}
	return out
}

func TestImportsGoDown(t *testing.T) {
	for _, s := range sources(t) {
		best := -1
		for i, l := range layers {
			if (l.folder == "" || under(s.folder, l.folder)) && (best < 0 || len(l.folder) > len(layers[best].folder)) {
				best = i
			}
		}
		l := layers[best]
		if l.folder == "" && s.folder != "" {
			t.Errorf("%s: folder %s has no place in the layer table of arch_test.go", s.path, s.folder)
			continue
		}
		for p, spec := range imports(s) {
			to, ours := strings.CutPrefix(p, module+"/")
			if !ours || to == s.folder {
				continue
			}
			if matches(to, l.may) || s.test && (matches(to, l.mayInTests) || under(to, s.folder) || under(s.folder, to) && to != "") {
				continue
			}
			t.Errorf("%s imports %s; %s may import only %v: %s", s.at(spec), to, l.folder, l.may, l.why)
		}
	}
}

func TestUtilsAreSmallAndStandardLibraryOnly(t *testing.T) {
	packages := map[string]bool{}
	lines := 0
	for _, s := range sources(t) {
		if !under(s.folder, "utils") || s.test {
			continue
		}
		if s.folder == "utils" && s.path != "utils/doc.go" {
			t.Errorf("%s: utils itself holds doc.go and nothing else", s.path)
		}
		if s.folder != "utils" {
			packages[s.folder] = true
			lines += s.lines
		}
		for p, spec := range imports(s) {
			if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ".") {
				t.Errorf("%s imports %s; utils is made of the standard library alone", s.at(spec), p)
			}
		}
	}
	if len(packages) > 4 || lines > 600 {
		t.Errorf("utils has %d packages and %d lines; 4 and 600 are the budget, beyond it a package deserves a name of its own", len(packages), lines)
	}
}

func TestForeignImports(t *testing.T) {
	used := map[string]int{}
	for _, s := range sources(t) {
		for p, spec := range imports(s) {
			for _, rule := range foreign {
				if p != rule.prefix && !strings.HasPrefix(p, strings.TrimSuffix(rule.prefix, "/")+"/") {
					continue
				}
				allowed := s.test && slices.ContainsFunc(rule.tests, func(f string) bool { return under(s.folder, f) })
				for folder, most := range rule.folders {
					if s.folder != folder && (folder == "" || !under(s.folder, folder)) {
						continue
					}
					allowed = true
					key := rule.prefix + " in " + folder
					if used[key]++; !s.test && most > 0 && used[key] > most {
						t.Errorf("%s: %s is imported by more than %d file: %s", s.at(spec), key, most, rule.why)
					}
					if s.test {
						used[key]--
					}
				}
				if !allowed {
					t.Errorf("%s imports %s: %s", s.at(spec), p, rule.why)
				}
			}
		}
	}
}

func TestStandardRuntimeIsImportedAsGoruntime(t *testing.T) {
	for _, s := range sources(t) {
		if spec, ok := imports(s)["runtime"]; ok && (spec.Name == nil || spec.Name.Name != "goruntime") {
			t.Errorf("%s: write goruntime \"runtime\"; runtime is our own package (ADR 0001)", s.at(spec))
		}
	}
}

func TestHouseRules(t *testing.T) {
	marker := []string{"TO" + "DO", "FIX" + "ME", "X" + "XX", "not " + "implemented", "un" + "implemented"}
	for _, s := range sources(t) {
		if !s.test && s.lines > maxLines {
			t.Errorf("%s has %d lines; one file, one subject, at most %d", s.path, s.lines, maxLines)
		}
		for _, m := range marker {
			if strings.Contains(s.text, m) {
				t.Errorf("%s: %q: finish it, or leave it out", s.path, m)
			}
		}
		outside := s.folder != "" && !under(s.folder, "cli")
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s: init(): importing a package must not do anything", s.at(n))
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok {
					return true
				}
				name := x.Name + "." + n.Sel.Name
				switch {
				case x.Name == "os" && environment[n.Sel.Name] && outside && !s.test:
					t.Errorf("%s: %s: environment and exit codes belong to cli", s.at(n), name)
				case name == "os.Exit" && !s.test && s.path != "main.go":
					t.Errorf("%s: os.Exit belongs to main.go", s.at(n))
				case x.Name == "logrus" && globalLogger[n.Sel.Name] && !s.test:
					t.Errorf("%s: %s: the logger is injected", s.at(n), name)
				case name == "time.Sleep" && !s.test && !strings.HasSuffix(s.folder, "test"):
					t.Errorf("%s: time.Sleep is deaf to its context", s.at(n))
				case s.test && (x.Name == "t" || x.Name == "b" || x.Name == "tb") && strings.HasPrefix(n.Sel.Name, "Skip") && n.Sel.Name != "Skipped":
					t.Errorf("%s: %s: a test that cannot run must not look green", s.at(n), name)
				}
			}
			return true
		})
	}
}

// TestPackagesAreDocumented asks for exactly one package comment in each package: two are joined by go doc in the order
// of file names, and neither author knows.
func TestPackagesAreDocumented(t *testing.T) {
	docs := map[string][]string{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		if _, ok := docs[s.folder]; !ok {
			docs[s.folder] = nil
		}
		if s.file.Doc != nil {
			docs[s.folder] = append(docs[s.folder], s.path)
			if want := "Package " + s.file.Name.Name + " "; s.file.Name.Name != "main" && !strings.HasPrefix(s.file.Doc.Text(), want) {
				t.Errorf("%s: the package comment begins %q", s.path, want)
			}
		}
	}
	for folder, files := range docs {
		if len(files) != 1 {
			t.Errorf("package in %q has %d package comments %v, want one", folder, len(files), files)
		}
	}
}

// TestADRsAreLinked keeps the list of decisions complete.
func TestADRsAreLinked(t *testing.T) {
	index, err := os.ReadFile("docs/adr/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("docs/adr")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "README.md" && !strings.Contains(string(index), f.Name()) {
			t.Errorf("docs/adr/README.md does not mention %s", f.Name())
		}
	}
	// A reader of ARCHITECTURE.md shall find each top-level folder in it.
	arch, err := os.Open("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	defer arch.Close()
	named := map[string]bool{}
	lines := bufio.NewScanner(arch)
	for lines.Scan() {
		for _, word := range strings.FieldsFunc(lines.Text(), func(r rune) bool { return strings.ContainsRune(" `|,()", r) }) {
			if folder, ok := strings.CutSuffix(word, "/"); ok {
				named[folder] = true
			}
		}
	}
	for _, s := range sources(t) {
		if top, _, _ := strings.Cut(s.folder, "/"); top != "" && !named[top] {
			t.Errorf("ARCHITECTURE.md does not name the folder %s/", top)
			named[top] = true
		}
	}
}
