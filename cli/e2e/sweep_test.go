package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSweep kills an agent in the middle of two processes. Its next start ends the one that was not to be kept.
func TestSweep(t *testing.T) {
	u, name := newUser(t), prefix(t)
	start := func() *process {
		return u.start("dev", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--data", filepath.Join(u.dir, "data"))
	}
	p := start()
	p.says("In a second terminal")
	u.online(1)
	var made container
	u.json(&made, "run", "--name", name, image, "sleep", "3600")
	runs := func(mark string) bool {
		out, err := exec.Command("docker", "top", made.ContainerID, "-o", "pid,args").CombinedOutput()
		if err != nil {
			t.Fatalf("docker top: %v\n%s", err, out)
		}
		return strings.Contains(string(out), "sleep "+mark)
	}
	u.start("exec", name, "sleep", "7211")
	u.start("exec", "--keep", name, "sleep", "7212")
	eventually(t, "both processes", func() bool { return runs("7211") && runs("7212") })
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if !runs("7211") {
		t.Fatal("it ended with its agent: there is nothing to sweep")
	}
	p = start()
	eventually(t, "the end of what was left", func() bool { return !runs("7211") })
	if !runs("7212") {
		t.Error("what was to be kept has ended")
	}
	p.stop(os.Interrupt)
}
