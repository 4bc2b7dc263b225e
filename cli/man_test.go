package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func TestManPages(t *testing.T) {
	code, out, errOut := call(t.Context(), nil, "man")
	if code != ExitOK || !strings.HasPrefix(out, ".TH \"DROVER\" 1 ") || !strings.Contains(out, "\\fBdrover\\-hosts\\fR(1)") {
		t.Fatalf("man: %d %s\n%s", code, errOut, out)
	}
	dir := filepath.Join(t.TempDir(), "man1")
	if code, _, errOut := call(t.Context(), nil, "man", dir); code != ExitOK {
		t.Fatalf("man FOLDER: %d %s", code, errOut)
	}
	b, err := os.ReadFile(filepath.Join(dir, "drover-token-create.1"))
	if err != nil || !strings.Contains(string(b), "\n.SH OPTIONS\n") || !strings.Contains(string(b), "\\fBdrover\\-token\\fR(1)") {
		t.Errorf("the page of a command of a command: %v\n%s", err, b)
	}
	if code, _, _ := call(t.Context(), nil, "man", "/dev/null/man1"); code != ExitFailed {
		t.Errorf("a folder that cannot be: exit %d", code)
	}
}

// TestManPageIsNoRoff checks that no text of ours becomes a request of the formatter, and that examples keep their lines.
func TestManPageIsNoRoff(t *testing.T) {
	cmd := &cobra.Command{
		Use: "x", Short: "a", Run: func(*cobra.Command, []string) {},
		Long: "One.\n.so /etc/passwd\n'tis a \\fBbackslash\n\nA list:\n  first\n  .second\nand on", Example: "  x --a\n  x --b",
	}
	cmd.Flags().String("name", "web", "the `NAME`\n.of it")
	p := &manPage{date: time.Unix(0, 0)}
	p.render(cmd)
	page := p.String()
	for _, want := range []string{
		"\n\\&.so /etc/passwd\n\\&'tis a \\efBbackslash\n.PP\nA list:\n.nf\n.RS\n  first\n  .second\n.RE\n.fi\nand on\n",
		".nf\n.RS\n  x \\-\\-a\n  x \\-\\-b\n.RE\n.fi\n", "\\fB\\-\\-name\\fR=\\fINAME\\fR\nthe NAME\n\\&.of it (default web)\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing in\n%s", want, page)
		}
	}
}
