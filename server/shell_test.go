package server_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// runShell runs dir/boot with the commands of dir before those of the machine.
func runShell(dir string, env ...string) (string, error) {
	cmd := exec.Command("/bin/sh", filepath.Join(dir, "boot"))
	cmd.Env = append([]string{"PATH=" + dir + ":" + os.Getenv("PATH")}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var errBroken = errors.New("it is broken")
