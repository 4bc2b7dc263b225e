package register

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

const (
	machineA  = "0123456789abcdef0123456789abcdef"
	machineB  = "fedcba9876543210fedcba9876543210"
	hardwareA = "4c4c4544-0035-3510-8054-b7c04f333332"
	hardwareB = "4c4c4544-0035-3510-8054-b7c04f333333"
)

// tree makes a root with the files, given by path and content.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	fileMachineID = "etc/machine-id"
	fileProduct   = "sys/class/dmi/id/product_uuid"
	fileMounts    = "proc/self/mountinfo"
	fileDocker    = ".dockerenv"

	hostMounts      = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	overlayMounts   = "22 1 0:50 / / rw,relatime master:1 - overlay overlay rw\n"
	containerMounts = hostMounts + "700 600 8:1 /x/hosts /etc/hosts rw - ext4 /dev/sda1 rw\n"
	mountedID       = containerMounts + "701 600 8:1 /etc/machine-id /etc/machine-id ro - ext4 /dev/sda1 rw\n"
)

type who struct {
	Identity
	notices []string
}

// identify runs on a state directory as a machine and reports who it is.
func identify(t *testing.T, stateDir string, m machine, change func(*IdentityConfig)) (who, []Notice) {
	t.Helper()
	cfg := Config{StateDir: stateDir, Identity: IdentityConfig{LegacyStateDir: "-"}}.withDefaults()
	if change != nil {
		change(&cfg.Identity)
	}
	j := &joiner{cfg: cfg, log: cfg.Log}
	if err := j.prepareDir(); err != nil {
		t.Fatal(err)
	}
	id, err := j.identify(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	w := who{Identity: id}
	for _, n := range j.notices {
		w.notices = append(w.notices, n.Kind)
	}
	return w, j.notices
}

func engine(id string) EngineIDFunc {
	return func(context.Context) (string, error) { return id, nil }
}

// TestIdentityFollowsTheMachine starts twice on one state directory.
func TestIdentityFollowsTheMachine(t *testing.T) {
	bare := func(id, hardware string) machine {
		return machine{self: tree(t, map[string]string{fileMachineID: id + "\n", fileProduct: strings.ToUpper(hardware) + "\n", fileMounts: hostMounts})}
	}
	container := func(imageID, hardware, engineID string) machine {
		return machine{self: tree(t, map[string]string{fileMachineID: imageID, fileProduct: hardware, fileMounts: containerMounts}), engineID: engine(engineID)}
	}
	broken := func(context.Context) (string, error) { return "", errors.New("the engine is down") }
	for name, c := range map[string]struct {
		first, second machine
		renewed       bool
	}{
		"restart":                          {bare(machineA, hardwareA), bare(machineA, hardwareA), false},
		"prepared clone":                   {bare(machineA, hardwareA), bare(machineB, hardwareB), true},
		"clone with the same machine-id":   {bare(machineA, hardwareA), bare(machineA, hardwareB), true},
		"jail on the same hardware":        {bare(machineA, hardwareA), bare(machineB, hardwareA), true},
		"hardware cannot be read any more": {bare(machineA, hardwareA), bare(machineA, ""), false},
		"hardware can be read now":         {bare(machineA, ""), bare(machineA, hardwareA), false},
		"clone, hardware unreadable":       {bare(machineA, ""), bare(machineB, ""), true},
		"hardware uuid in the other byte order": {
			bare(machineA, "00112233-4455-6677-8899-aabbccddeeff"), bare(machineA, "33221100-5544-7766-8899-aabbccddeeff"), false,
		},
		"uuid that all boards of a maker have": {
			bare(machineA, "03000200-0400-0500-0006-000700080009"), bare(machineA, hardwareB), false,
		},
		"image not started yet":          {bare("uninitialized", hardwareA), bare(machineA, hardwareA), false},
		"recreated container":            {container(machineA, hardwareA, "E1"), container(machineB, hardwareA, "E1"), false},
		"container on a copied machine":  {container(machineA, hardwareA, "E1"), container(machineA, hardwareB, "E1"), true},
		"container in a copied jail":     {container(machineA, hardwareA, "E1"), container(machineA, hardwareA, "E2"), true},
		"container, engine down":         {container(machineA, hardwareA, "E1"), machine{self: container(machineA, hardwareA, "").self, engineID: broken}, false},
		"container gets the host's root": {container(machineA, hardwareA, "E1"), machine{self: container(machineB, hardwareA, "").self, rootfs: bare(machineB, hardwareA).self, engineID: engine("E9")}, false},
		"container sees another host":    {machine{self: container("", "", "").self, rootfs: bare(machineA, "").self}, machine{self: container("", "", "").self, rootfs: bare(machineB, "").self}, true},
		"from the host to a container":   {bare(machineA, hardwareA), container(machineB, hardwareA, "E1"), false},
		"mounted machine-id":             {machine{self: tree(t, map[string]string{fileMachineID: machineA, fileMounts: mountedID, fileDocker: ""})}, machine{self: tree(t, map[string]string{fileMachineID: machineB, fileMounts: mountedID, fileDocker: ""})}, true},
		"podman, image's own machine-id": {machine{self: tree(t, map[string]string{fileMachineID: machineA, "run/.containerenv": ""})}, machine{self: tree(t, map[string]string{fileMachineID: machineB, "run/.containerenv": ""})}, false},
		"disk of a machine made out of an image": {
			machine{self: tree(t, map[string]string{fileMachineID: machineA, fileMounts: hostMounts, fileDocker: ""})},
			machine{self: tree(t, map[string]string{fileMachineID: machineB, fileMounts: hostMounts, fileDocker: ""})},
			true,
		},
		"container of an unusual engine": {
			machine{self: tree(t, map[string]string{fileMachineID: machineA, fileMounts: overlayMounts, fileDocker: ""})},
			machine{self: tree(t, map[string]string{fileMachineID: machineB, fileMounts: overlayMounts, fileDocker: ""})},
			false,
		},
		"dbus has the machine-id":         {machine{self: tree(t, map[string]string{"var/lib/dbus/machine-id": machineA})}, bare(machineB, ""), true},
		"board without firmware, SD card": {machine{self: tree(t, map[string]string{fileMachineID: machineA, "proc/device-tree/serial-number": "10000000abcd1234\x00"})}, machine{self: tree(t, map[string]string{fileMachineID: machineA, "proc/device-tree/serial-number": "10000000abcd1235\x00"})}, true},
		"nothing is known":                {machine{self: t.TempDir()}, machine{self: t.TempDir()}, false},
		"nothing, then something":         {machine{self: t.TempDir()}, bare(machineA, hardwareA), false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			first, _ := identify(t, dir, c.first, nil)
			if slices.Contains(first.notices, NoticeCloned) {
				t.Errorf("the first start says %v", first.notices)
			}
			files := []string{fileCredentials, fileKey, fileJournal, fileHostKey, fileInfo}
			for _, name := range files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("from the first machine"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			second, notices := identify(t, dir, c.second, nil)
			if got := second.Identity != first.Identity; got != c.renewed || got != slices.Contains(second.notices, NoticeCloned) {
				t.Errorf("renewed %v, notices %+v, want %v", got, notices, c.renewed)
			}
			if c.renewed && (second.HostUUID == first.HostUUID || second.PhysicalHostUUID == first.PhysicalHostUUID) {
				t.Errorf("half an identity: %+v after %+v", second.Identity, first.Identity)
			}
			for _, name := range files {
				if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) != c.renewed {
					t.Errorf("%s: %v", name, err)
				}
			}
			if c.renewed && !strings.Contains(notices[len(notices)-1].Text, first.HostUUID) {
				t.Errorf("the notice does not name the old uuid: %s", notices[len(notices)-1].Text)
			}
			third, _ := identify(t, dir, c.second, nil)
			if third.Identity != second.Identity || slices.Contains(third.notices, NoticeCloned) {
				t.Errorf("the third start changes again: %+v", third)
			}
		})
	}
}

// What is learned later about a machine counts, and what was known stays known.
func TestBindingGrows(t *testing.T) {
	dir := t.TempDir()
	root := func(id, hardware string) machine {
		return machine{self: tree(t, map[string]string{fileMachineID: id, fileProduct: hardware})}
	}
	first, _ := identify(t, dir, root(machineA, hardwareA), nil)
	identify(t, dir, root(machineA, ""), nil) // not root this time
	second, _ := identify(t, dir, root(machineA, hardwareB), nil)
	if second.Identity == first.Identity {
		t.Error("a copy was not noticed after a start that could not read the hardware's uuid")
	}
	if b, _ := os.ReadFile(filepath.Join(dir, ".machine")); strings.Contains(string(b), machineA) || !strings.Contains(string(b), first.HostUUID) {
		t.Errorf(".machine shows the machine-id, or forgets where it came from:\n%s", b)
	}
}

func TestOperatorKeepsTheIdentityOfAMovedHost(t *testing.T) {
	dir := t.TempDir()
	a := machine{self: tree(t, map[string]string{fileMachineID: machineA})}
	b := machine{self: tree(t, map[string]string{fileMachineID: machineB})}
	first, _ := identify(t, dir, a, nil)
	if err := os.WriteFile(filepath.Join(dir, fileCredentials), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	moved, _ := identify(t, dir, b, func(c *IdentityConfig) { c.HostUUID = first.HostUUID })
	if moved.Identity != first.Identity || slices.Contains(moved.notices, NoticeCloned) {
		t.Errorf("got %+v", moved)
	}
	if _, err := os.Stat(filepath.Join(dir, fileCredentials)); err != nil {
		t.Error(err)
	}
	if later, _ := identify(t, dir, b, nil); later.Identity != first.Identity {
		t.Errorf("without the setting again: %+v", later)
	}
}

func TestUUIDFiles(t *testing.T) {
	m := machine{self: tree(t, map[string]string{fileMachineID: machineA})}
	for name, c := range map[string]struct {
		content, want string // want "" is a new uuid
		notice        bool
	}{
		"plain":         {content: "5b3c-old", want: "5b3c-old"},
		"newline":       {content: "5b3c-old\n", want: "5b3c-old"},
		"crlf and bom":  {content: "\ufeff 5b3c-old \r\n", want: "5b3c-old"},
		"empty":         {content: "", notice: true},
		"blank":         {content: " \n", notice: true},
		"two words":     {content: "a b", notice: true},
		"binary":        {content: "\x00\x00\x00\x00", notice: true},
		"endless":       {content: strings.Repeat("a", 513), notice: true},
		"not ASCII":     {content: "hôte", notice: true},
		"two lines":     {content: "a\nb\n", notice: true},
		"not even that": {content: "-", want: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range []string{fileHostUUID, filePhysicalUUID} {
				if err := os.WriteFile(filepath.Join(dir, f), []byte(c.content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, notices := identify(t, dir, m, nil)
			if c.want != "" && (got.HostUUID != c.want || got.PhysicalHostUUID != c.want) {
				t.Errorf("got %+v, want %q", got.Identity, c.want)
			}
			if c.want == "" && (uuid.Validate(got.HostUUID) != nil || uuid.Validate(got.PhysicalHostUUID) != nil) {
				t.Errorf("got %+v, want new uuids", got.Identity)
			}
			if c.notice != (len(notices) == 2) {
				t.Errorf("notices %+v", notices)
			}
			if again, _ := identify(t, dir, m, nil); again.Identity != got.Identity {
				t.Errorf("then %+v", again)
			}
		})
	}
}

func TestOverridesAreStored(t *testing.T) {
	m := machine{self: tree(t, map[string]string{fileMachineID: machineA})}
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "uuid")
	first, _ := identify(t, dir, m, nil)
	given, _ := identify(t, dir, m, func(c *IdentityConfig) { c.HostUUID, c.PhysicalHostUUID = " host-1\n", "phys-1" })
	if given.Identity != (Identity{"host-1", "phys-1"}) || len(given.notices) != 0 {
		t.Errorf("given: %+v", given)
	}
	if later, _ := identify(t, dir, m, nil); later.Identity != given.Identity || later.Identity == first.Identity {
		t.Errorf("later: %+v", later)
	}
	if b, err := os.ReadFile(filepath.Join(dir, fileHostUUID)); string(b) != "host-1" {
		t.Errorf("file: %q, %v, want it as the original writes it", b, err)
	}
	moved, _ := identify(t, dir, m, func(c *IdentityConfig) { c.HostUUIDFile = elsewhere })
	if b, err := os.ReadFile(elsewhere); err != nil || string(b) != moved.HostUUID || moved.HostUUID == "host-1" || moved.PhysicalHostUUID != "phys-1" {
		t.Errorf("moved file: %q, %v, %+v", b, err, moved)
	}
}

func TestTakeover(t *testing.T) {
	key := strings.Repeat("0f", 64)
	legacy := tree(t, map[string]string{
		"state/.docker_uuid": "old-host\n", "state/.physical_host_uuid": "old-phys", "state/.registration_token": key + "\n",
		"state/info.json": `{"label":{}}`, "etc/ssl/host.key": "KEY", "state/.other": "x",
	})
	m := machine{self: tree(t, map[string]string{fileMachineID: machineA})}
	from := func(dir string) func(*IdentityConfig) {
		return func(c *IdentityConfig) { c.LegacyStateDir = dir }
	}
	dir := t.TempDir()
	got, notices := identify(t, dir, m, from(legacy+"/state"))
	if got.Identity != (Identity{"old-host", "old-phys"}) || !slices.Equal(got.notices, []string{NoticeMigrated}) {
		t.Errorf("got %+v, %+v", got, notices)
	}
	for name, want := range map[string]string{fileKey: key, fileInfo: `{"label":{}}`, fileHostKey: "KEY"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		fi, statErr := os.Stat(filepath.Join(dir, name))
		if string(b) != want || err != nil || statErr != nil || fi.Mode() != 0o600 {
			t.Errorf("%s: %q, %v, %v", name, b, err, fi)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".other")); err == nil {
		t.Error("took what is none of ours")
	}

	// Once: what changes there later is not looked at, nor is another original.
	if err := os.WriteFile(filepath.Join(legacy, "state/.docker_uuid"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, _ := identify(t, dir, m, from(legacy+"/state")); again.Identity != got.Identity || len(again.notices) != 0 {
		t.Errorf("again: %+v", again)
	}
	// A copy of the disk is noticed after a takeover too.
	clone, _ := identify(t, dir, machine{self: tree(t, map[string]string{fileMachineID: machineB})}, from(legacy+"/state"))
	if clone.HostUUID == "old-host" || clone.HostUUID == "changed" || !slices.Contains(clone.notices, NoticeCloned) {
		t.Errorf("clone: %+v", clone)
	}
}

func TestTakeoverPlaces(t *testing.T) {
	host := tree(t, map[string]string{"var/lib/rancher/state/.docker_uuid": "old-host"})
	m := machine{self: t.TempDir(), rootfs: host}
	got, _ := identify(t, t.TempDir(), m, func(c *IdentityConfig) { c.LegacyStateDir = "/var/lib/rancher/state" })
	if got.HostUUID != "old-host" {
		t.Errorf("below the host's root: %+v", got)
	}
	if got, _ := identify(t, t.TempDir(), m, nil); got.HostUUID == "old-host" {
		t.Error("took over although that was switched off")
	}
	// Our own identity is never replaced by an original's.
	dir := t.TempDir()
	own, _ := identify(t, dir, m, nil)
	if got, _ := identify(t, dir, m, func(c *IdentityConfig) { c.LegacyStateDir = "/var/lib/rancher/state" }); got.Identity != own.Identity {
		t.Errorf("got %+v, want our own %+v", got, own)
	}
	// The original's directory may be ours.
	same := filepath.Join(host, "var/lib/rancher/state")
	if got, _ := identify(t, same, m, func(c *IdentityConfig) { c.LegacyStateDir = same }); got.HostUUID != "old-host" {
		t.Errorf("in place: %+v", got)
	}
	// An original that left rubbish is as good as none.
	for _, content := range []string{"", "a b", "\x00"} {
		rubbish := tree(t, map[string]string{".docker_uuid": content, ".registration_token": "x"})
		dir := t.TempDir()
		got, _ := identify(t, dir, machine{self: t.TempDir()}, func(c *IdentityConfig) { c.LegacyStateDir = rubbish })
		if _, err := os.Stat(filepath.Join(dir, fileKey)); uuid.Validate(got.HostUUID) != nil || err == nil {
			t.Errorf("%q: %+v", content, got)
		}
	}
}

func TestBrokenBinding(t *testing.T) {
	m := machine{self: tree(t, map[string]string{fileMachineID: machineA})}
	for _, content := range []string{"", "{", `{"version":7}`, `{"machineId":5}`, "\x00"} {
		dir := t.TempDir()
		first, _ := identify(t, dir, m, nil)
		if err := os.WriteFile(filepath.Join(dir, fileMachine), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, _ := identify(t, dir, m, nil)
		if got.Identity != first.Identity || !slices.Equal(got.notices, []string{NoticeIdentity}) {
			t.Errorf("%q: got %+v", content, got)
		}
		if again, _ := identify(t, dir, m, nil); len(again.notices) != 0 {
			t.Errorf("%q: not mended: %+v", content, again)
		}
	}
}

func TestIdentifyOfThisMachine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	first, _, err := Identify(t.Context(), dir, IdentityConfig{LegacyStateDir: "-"}, nil)
	if err != nil || uuid.Validate(first.HostUUID) != nil {
		t.Fatalf("got %+v, %v", first, err)
	}
	if again, notices, err := Identify(t.Context(), dir, IdentityConfig{LegacyStateDir: "-", Rootfs: "/"}, nil); err != nil || again != first {
		t.Errorf("got %+v, %+v, %v", again, notices, err)
	}
	if _, _, err := Identify(t.Context(), "/proc/nowhere", IdentityConfig{}, nil); err == nil {
		t.Error("no error where nothing can be written")
	}
}
