package handlers

import (
	"os"
	"path/filepath"
	"testing"
)

const route = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0100000A	0003	0	0	0	00000000	0	0	0
eth0	00002A0A	00000000	0001	0	0	0	0000FFFF	0	0	0
eth1	0000A8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
`

const trie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.42.0.0/16 2 0 2
        |-- 10.42.0.0
           /16 link UNICAST
        |-- 10.42.7.9
           /32 host LOCAL
Local:
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 192.168.0.5
        /32 host LOCAL
     |-- 10.42.255.255
        /32 link BROADCAST
     |-- 10.42.7.9
        /32 host LOCAL
`

func TestInterfaceAddress(t *testing.T) {
	proc := t.TempDir()
	dir := filepath.Join(proc, "42", "net")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := interfaceAddress(proc, 42, "eth0"); got != "" {
		t.Errorf("without tables the address is %q", got)
	}
	for name, text := range map[string]string{"route": route, "fib_trie": trie} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"eth0": "10.42.7.9", "eth1": "192.168.0.5", "eth2": ""} {
		if got := interfaceAddress(proc, 42, name); got != want {
			t.Errorf("address of %s is %q, want %q", name, got, want)
		}
	}
	if got := interfaceAddress(proc, 43, "eth0"); got != "" {
		t.Errorf("a process that is gone has %q", got)
	}
}

func FuzzInterfaceAddress(f *testing.F) {
	f.Add(route, trie)
	f.Fuzz(func(t *testing.T, route, trie string) {
		for _, n := range connected(route, "eth0") {
			for _, a := range localAddresses(trie) {
				_ = n.Contains(a)
			}
		}
	})
}
