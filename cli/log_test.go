package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"k8s.io/klog/v2"
)

// TestKubernetesLibrariesUseTheLog is about what they say by klog, which would write to standard error in its own form.
func TestKubernetesLibrariesUseTheLog(t *testing.T) {
	defer klog.ClearLogger()
	for level, want := range map[string]int{"info": 0, "debug": 2} {
		var out bytes.Buffer
		a := &app{env: Env{Stderr: &out, SetKlog: klog.SetLogger}}
		if _, err := a.logger(level, "json"); err != nil {
			t.Fatal(err)
		}
		klog.ErrorS(errors.New("stream 7 was reset"), "Unhandled Error", "pod", "ns/web")
		klog.Info("a watch begins")
		klog.Flush()
		lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
		if out.Len() == 0 {
			lines = nil
		}
		if len(lines) != want {
			t.Fatalf("%s: %d lines, want %d:\n%s", level, len(lines), want, out.String())
		}
		for i, line := range lines {
			var entry struct{ Level, Klog, Message, Time string }
			says := []string{"stream 7 was reset", "a watch begins"}[i]
			if err := json.Unmarshal(line, &entry); err != nil || entry.Level != "debug" || entry.Message == "" || entry.Time == "" ||
				!bytes.Contains([]byte(entry.Klog), []byte(says)) {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
}
