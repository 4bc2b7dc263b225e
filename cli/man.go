package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A manPage writes one manual page in the man macros of roff. (Cobra's own generator goes through Markdown, whose parser
// costs every start of the program a part of a millisecond, and runs the lines of examples together.)
type manPage struct {
	bytes.Buffer
	date time.Time
}

// roff escapes what would be a request or an escape sequence.
func roff(text string) string {
	lines := strings.Split(strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func (p *manPage) section(name string) { fmt.Fprintf(p, ".SH %s\n", name) }

func (p *manPage) verbatim(text string) {
	fmt.Fprintf(p, ".nf\n.RS\n%s\n.RE\n.fi\n", roff(strings.Trim(text, "\n")))
}

// prose writes paragraphs. Indented lines are a table or an example and stay as they are.
func (p *manPage) prose(text string) {
	for i, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if i > 0 {
			p.WriteString(".PP\n")
		}
		var indented []string
		flush := func() {
			if len(indented) > 0 {
				p.verbatim(strings.Join(indented, "\n"))
				indented = nil
			}
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			if strings.HasPrefix(line, " ") {
				indented = append(indented, line)
				continue
			}
			flush()
			p.WriteString(roff(line) + "\n")
		}
		flush()
	}
}

func (p *manPage) options(name string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	p.section(name)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		p.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(p, `\fB\-%s\fR, `, roff(f.Shorthand))
		}
		fmt.Fprintf(p, `\fB\-\-%s\fR`, roff(f.Name))
		if value != "" {
			fmt.Fprintf(p, `=\fI%s\fR`, roff(value))
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		p.WriteString("\n" + roff(usage) + "\n")
	})
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// render writes the page of cmd.
func (p *manPage) render(cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	fmt.Fprintf(p, ".TH %q 1 %q %q Drover\n", strings.ToUpper(manName(cmd)), p.date.Format(time.DateOnly), "drover "+version)
	p.section("NAME")
	fmt.Fprintf(p, "%s \\- %s\n", roff(manName(cmd)), roff(cmd.Short))
	p.section("SYNOPSIS")
	fmt.Fprintf(p, "\\fB%s\\fR\n", roff(cmd.UseLine()))
	p.section("DESCRIPTION")
	if cmd.Long != "" {
		p.prose(cmd.Long)
	} else {
		p.prose(cmd.Short + ".")
	}
	if cmd.Example != "" {
		p.section("EXAMPLES")
		p.verbatim(cmd.Example)
	}
	p.options("OPTIONS", cmd.NonInheritedFlags())
	p.options("GLOBAL OPTIONS", cmd.InheritedFlags())
	var see []string
	if cmd.HasParent() {
		see = append(see, manName(cmd.Parent()))
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && !sub.IsAdditionalHelpTopicCommand() {
			see = append(see, manName(sub))
		}
	}
	if len(see) > 0 {
		p.section("SEE ALSO")
		for i, name := range see {
			if i > 0 {
				p.WriteString(",\n")
			}
			fmt.Fprintf(p, "\\fB%s\\fR(1)", roff(name))
		}
		p.WriteString("\n")
	}
}

// writeManPages writes the pages of cmd and of all below it to folder, and returns how many.
func writeManPages(cmd *cobra.Command, folder string, date time.Time) (int, error) {
	page := &manPage{date: date}
	page.render(cmd)
	if err := os.WriteFile(filepath.Join(folder, manName(cmd)+".1"), page.Bytes(), 0o644); err != nil {
		return 0, err
	}
	pages := 1
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		n, err := writeManPages(sub, folder, date)
		if pages += n; err != nil {
			return pages, err
		}
	}
	return pages, nil
}
