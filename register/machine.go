package register

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// engineIDTimeout bounds the question for the engine's id: an engine that hangs must not hold up the start.
const engineIDTimeout = 5 * time.Second

// facts tell one machine from another. Each is a digest, or "" where it is not known.
type facts struct {
	// MachineID is that of the operating system (machine-id(5)). A template that was prepared well gets a new one in
	// each copy, a sloppy one does not.
	MachineID string `json:"machineId,omitempty"`
	// Hardware is the firmware's uuid of the machine, virtual or real. A copy of a virtual machine has another one; the
	// containers and jails of one machine share it.
	Hardware string `json:"hardware,omitempty"`
	// EngineID stands in where the machine-id cannot be seen. It lives on the engine's disk.
	EngineID string `json:"engineId,omitempty"`
}

func (f facts) empty() bool { return f == facts{} }

// differs reports what f and the facts of now contradict each other in; "" is nothing. A fact that one side does not
// know contradicts nothing, and the engine's id counts only where there is no machine-id to compare.
func (f facts) differs(now facts) string {
	other := func(a, b string) bool { return a != "" && b != "" && a != b }
	switch {
	case other(f.MachineID, now.MachineID):
		return "machine-id"
	case other(f.Hardware, now.Hardware):
		return "hardware uuid"
	case (f.MachineID == "" || now.MachineID == "") && other(f.EngineID, now.EngineID):
		return "id of the container engine"
	}
	return ""
}

// merge returns the facts of now, with what is unknown now kept as it was.
func (f facts) merge(now facts) facts {
	for _, m := range []struct{ to, from *string }{
		{&f.MachineID, &now.MachineID}, {&f.Hardware, &now.Hardware}, {&f.EngineID, &now.EngineID},
	} {
		if *m.from != "" {
			*m.to = *m.from
		}
	}
	return f
}

// machine reads the facts below self, the root that this process has, and rootfs, the host's root as seen from here or "".
type machine struct {
	self, rootfs string
	engineID     EngineIDFunc
}

func (m machine) facts(ctx context.Context) (facts, error) {
	var f facts
	roots := []string{m.self}
	if m.rootfs != "" {
		roots = []string{m.rootfs, m.self} // one kernel: /sys is the same from both
	}
	f.Hardware = digest(firstFact(roots, hardwareUUID,
		"sys/class/dmi/id/product_uuid", "sys/firmware/devicetree/base/serial-number", "proc/device-tree/serial-number"))
	ids := []string{"etc/machine-id", "var/lib/dbus/machine-id"}
	mounts := m.mounts()
	switch {
	case m.rootfs != "":
		f.MachineID = digest(firstFact([]string{m.rootfs}, machineID, ids...))
	case m.inContainer(mounts):
		// The container's own file came with its image. Only one that was mounted is the host's.
		mounted := slices.DeleteFunc(ids, func(p string) bool { return mounts["/"+p] == "" })
		f.MachineID = digest(firstFact(roots, machineID, mounted...))
	default:
		f.MachineID = digest(firstFact(roots, machineID, ids...))
	}
	if f.MachineID != "" || m.engineID == nil {
		return f, nil
	}
	ctx, cancel := context.WithTimeout(ctx, engineIDTimeout)
	defer cancel()
	id, err := m.engineID(ctx)
	f.EngineID = digest(strings.TrimSpace(id))
	return f, err
}

// firstFact returns the first of the files below the roots that holds something which clean accepts.
func firstFact(roots []string, clean func(string) string, files ...string) string {
	for _, root := range roots {
		for _, file := range files {
			b, err := readSmall(filepath.Join(root, file))
			if err != nil {
				continue // not there, or not for us: product_uuid is root's alone
			}
			if fact := clean(strings.ToLower(strings.Trim(string(b), " \t\r\n\x00"))); fact != "" {
				return fact
			}
		}
	}
	return ""
}

// machineID accepts 32 hex digits; an image that was not started yet says "uninitialized".
func machineID(text string) string {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 16 || bytes.Equal(b, make([]byte, 16)) {
		return ""
	}
	return text
}

// hardwareUUID accepts what firmware gives, but for what many machines have alike.
func hardwareUUID(text string) string {
	digits := strings.ReplaceAll(text, "-", "")
	switch {
	case len(digits) < 8, len(text) > 128,
		strings.Trim(digits, "0") == "", strings.Trim(digits, "f") == "",
		strings.HasPrefix(text, "not s"), // "not settable", "not specified"
		text == "03000200-0400-0500-0006-000700080009", text == "to be filled by o.e.m.":
		return ""
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != 16 {
		return text // a serial number
	}
	// The first three fields are read in one byte order or the other, and an update of a hypervisor may change which.
	swapped := slices.Clone(b)
	slices.Reverse(swapped[0:4])
	slices.Reverse(swapped[4:6])
	slices.Reverse(swapped[6:8])
	if bytes.Compare(swapped, b) < 0 {
		b = swapped
	}
	return hex.EncodeToString(b)
}

// digest hides a fact: machine-id(5) asks not to show it to others.
func digest(fact string) string {
	if fact == "" {
		return ""
	}
	h := hmac.New(sha256.New, []byte("drover: host identity"))
	h.Write([]byte(fact))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// inContainer reports whether this process' root is an image and not a machine. mounts is what the method of that name
// returns.
func (m machine) inContainer(mounts map[string]string) bool {
	marked := false
	for _, mark := range []string{".dockerenv", "run/.containerenv"} {
		if _, err := os.Stat(filepath.Join(m.self, mark)); err == nil {
			marked = true
		}
	}
	// Every engine mounts its own files over these. A marker alone is left in the disks of machines too, where they
	// were made out of an image.
	for _, path := range []string{"/etc/hosts", "/etc/hostname", "/dev/termination-log"} {
		if mounts[path] != "" {
			return true
		}
	}
	return marked && (mounts["/"] == "" || strings.Contains(mounts["/"], "overlay"))
}

// mounts returns the filesystem types by mount point, or nothing where the kernel does not tell.
func (m machine) mounts() map[string]string {
	f, err := os.Open(filepath.Join(m.self, "proc/self/mountinfo"))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	types := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// See proc(5): the mount point is the fifth field, the type follows the dash that ends the optional ones.
		fields := strings.Fields(lines.Text())
		if dash := slices.Index(fields, "-"); dash > 4 && dash+1 < len(fields) {
			types[fields[4]] = fields[dash+1]
		}
	}
	return types
}

// readSmall reads a file of the kernel, whose size stat does not know.
func readSmall(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, 4096)
	n, err := f.Read(b)
	if n > 0 {
		err = nil
	}
	return b[:n], err
}
