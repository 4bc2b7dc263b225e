package handlers

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// cniAddress returns the address that a CNI plugin gave to a container, "" for one that does not run. It waits for it.
func (h *handlers) cniAddress(ctx context.Context, st runtime.ContainerStatus) (string, error) {
	deadline := time.Now().Add(h.opts.IPWait)
	for delay := 250 * time.Millisecond; ; delay = min(2*delay, 2*time.Second) {
		if st.Pid == 0 {
			return "", nil
		}
		ip, err := h.cniResult(st)
		if err != nil || ip != "" {
			return ip, err
		}
		if ip := interfaceAddress(h.opts.Proc, st.Pid, "eth0"); ip != "" {
			return ip, nil
		}
		if time.Now().Add(delay).After(deadline) {
			//lint:ignore ST1005 users of the original agent know this text
			return "", errors.New("Timeout getting IP address")
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(delay):
		}
		next, err := h.engine.State(ctx, st.ID)
		if errors.Is(err, runtime.ErrNotFound) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		st = next
	}
}

// cniResult reads what the network's agent wrote down for this start of the container, "" if nothing yet.
func (h *handlers) cniResult(st runtime.ContainerStatus) (string, error) {
	name := filepath.Join(h.opts.CNIDir, st.ID, st.StartedAt.UTC().Format(time.RFC3339Nano))
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || len(b) == 0 && err == nil {
		return "", nil
	}
	var result struct {
		Error string
		IP4   struct{ IP string }
	}
	if err == nil {
		err = json.Unmarshal(b, &result)
	}
	if err != nil {
		return "", fmt.Errorf("network result of container %s: %w", st.Name, err)
	}
	if result.Error != "" {
		return "", errors.New(oneLine(result.Error))
	}
	ip, _, _ := strings.Cut(result.IP4.IP, "/")
	return ip, nil
}

// interfaceAddress returns the first IPv4 address of an interface in the network of a process, "" if it has none yet.
// It reads the kernel's routing tables, which needs no privilege beyond seeing the process: an address is local to the
// name space, and inside a network that is directly behind the interface.
func interfaceAddress(proc string, pid int, name string) string {
	dir := filepath.Join(proc, strconv.Itoa(pid), "net")
	routes, err := os.ReadFile(filepath.Join(dir, "route"))
	if err != nil {
		return ""
	}
	trie, err := os.ReadFile(filepath.Join(dir, "fib_trie"))
	if err != nil {
		return ""
	}
	networks := connected(string(routes), name)
	for _, ip := range localAddresses(string(trie)) {
		for _, n := range networks {
			if n.Contains(ip) {
				return ip.String()
			}
		}
	}
	return ""
}

// connected returns the networks that are behind an interface without a gateway, of proc/net/route.
func connected(table, name string) []netip.Prefix {
	var list []netip.Prefix
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 8 || f[0] != name || f[2] != "00000000" {
			continue
		}
		dest, ok := littleEndian(f[1])
		mask, okMask := littleEndian(f[7])
		if !ok || !okMask || mask == [4]byte{} {
			continue
		}
		bits := 0
		for _, b := range mask {
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
		}
		list = append(list, netip.PrefixFrom(netip.AddrFrom4(dest), bits))
	}
	return list
}

func littleEndian(s string) (a [4]byte, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return a, false
	}
	return [4]byte{b[3], b[2], b[1], b[0]}, true
}

// localAddresses returns the addresses of the name space in the order of proc/net/fib_trie, loopback apart.
func localAddresses(trie string) []netip.Addr {
	var list []netip.Addr
	var last netip.Addr
	for line := range strings.Lines(trie) {
		line = strings.TrimSpace(line)
		if s, ok := strings.CutPrefix(line, "|-- "); ok {
			last, _ = netip.ParseAddr(s)
			continue
		}
		if line == "/32 host LOCAL" && last.IsValid() && !last.IsLoopback() {
			list = append(list, last)
			last = netip.Addr{}
		}
	}
	return list
}
