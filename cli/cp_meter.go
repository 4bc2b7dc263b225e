package cli

import (
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/droverhq/drover/cli/ui"
)

// A meter shows how far a copy is.
type meter struct {
	app   *app
	line  *ui.Progress
	name  string
	total int64 // 0 is unknown
	begun time.Time

	mu    sync.Mutex
	have  int64
	notes []string
}

func (j *copyJob) start(name string, total int64) *meter {
	return &meter{app: j.app, line: j.app.progress(), name: path.Base(name), total: total, begun: time.Now()}
}

// add tells of bytes that were copied.
func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.have += int64(n)
	rate := bytesText(int64(float64(m.have) / max(time.Since(m.begun).Seconds(), 0.001)))
	if m.total > 0 {
		m.line.Set("%s %s  %s of %s  %s/s", m.name, bar(m.have, m.total), bytesText(m.have), bytesText(max(m.total, m.have)), rate)
		return
	}
	m.line.Set("%s  %s  %s/s", m.name, bytesText(m.have), rate)
}

// note keeps something to be said when the line is gone.
func (m *meter) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.notes) < maxNotes {
		m.notes = append(m.notes, fmt.Sprintf(format, args...))
	}
}

// maxNotes bounds what is said of a copy.
const maxNotes = 50

func (m *meter) stop() {
	m.line.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.notes {
		m.app.note("%s", n)
	}
}
