package logs

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain makes this test binary the process that awk runs in, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "awk-worker" {
		os.Exit(AwkWorker())
	}
	goleak.VerifyTestMain(m)
}

func awkCommand() AwkCommand {
	return AwkCommand{Path: "/proc/self/exe", Args: []string{"logs.test", "awk-worker"}}
}
