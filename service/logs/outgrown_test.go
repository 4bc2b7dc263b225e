package logs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file that is truncated and has outgrown its old size, or is as long as before, when it is looked at again.
func TestFollowSeesATruncationThatWasOutgrown(t *testing.T) {
	old := strings.Repeat("an old line of the log\n", 50)
	for name, fresh := range map[string]string{
		"longer":      strings.Repeat("another line, of the new log\n", 60),
		"as long":     strings.Repeat("a new line of the log \n", 50),
		"same ending": strings.Repeat("a new line of the log \n", 49) + "an old line of the log\nand more\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "app.log")
			appendTo(t, file, old)
			s := newService(t, Config{Roots: []string{dir}})
			one, _ := startFollow(t, s, "tail -n 1 -f "+file)
			two, _ := startFollow(t, s, "tail -n 0 -f "+file)
			eventually(t, "the last line", func() bool { return one.text() == "an old line of the log\n" })
			eventually(t, "two followers", func() bool {
				s.watches.mu.Lock()
				defer s.watches.mu.Unlock()
				f := s.watches.byName[file]
				return f != nil && f.refs == 2
			})

			// The watch does not get to look in between.
			f := s.watches.byName[file]
			f.mu.Lock()
			if err := os.Truncate(file, 0); err != nil {
				t.Fatal(err)
			}
			appendTo(t, file, fresh)
			f.mu.Unlock()

			eventually(t, "the new content", func() bool { return one.text() == "an old line of the log\n"+fresh && two.text() == fresh })
			appendTo(t, file, "later\n")
			eventually(t, "what comes later, once", func() bool { return strings.HasSuffix(one.text(), "later\n") && two.text() == fresh+"later\n" })
			if got := one.text(); got != "an old line of the log\n"+fresh+"later\n" {
				t.Errorf("%d bytes instead of %d", len(got), len(fresh)+29)
			}
			if said := two.said(); strings.Count(said, noteTruncated) != 1 {
				t.Errorf("it said %q", said)
			}
		})
	}
}
