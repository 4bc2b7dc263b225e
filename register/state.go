package register

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/droverhq/drover/utils/atomicfile"
	"github.com/droverhq/drover/utils/secret"
)

// The files of the state directory.
const (
	fileHostUUID     = ".docker_uuid"
	filePhysicalUUID = ".physical_host_uuid"
	fileMachine      = ".machine"
	fileKey          = ".registration_token"
	fileCredentials  = "credentials.json"
	fileCA           = "ca.pem"
	fileAPICert      = "api.crt"
	fileInfo         = "info.json"
	fileHostKey      = "host.key"
	fileJournal      = "journal.db"
)

// stored is credentials.json.
type stored struct {
	Version   int    `json:"version"`
	APIURL    string `json:"apiUrl"`
	AccessKey string `json:"accessKey"`
	SecretKey string `json:"secretKey"`
	// RegistrationURL is where the credentials came from: a start with another one registers anew, and refused
	// credentials can be renewed by a start without one.
	RegistrationURL string `json:"registrationUrl,omitempty"`
	AgentIP         string `json:"agentIp,omitempty"`
	// CAChecksum is what the server's CA was pinned by: a start without one trusts what the registration trusted.
	CAChecksum   string    `json:"caChecksum,omitempty"`
	RegisteredAt time.Time `json:"registeredAt"`
}

const storedVersion = 1

// loadStored returns nil, nil where there are no credentials.
func loadStored(dir string) (*stored, error) {
	file := filepath.Join(dir, fileCredentials)
	b, err := readBounded(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%s: not JSON", file) // the decoder's text may quote the secret
	}
	switch {
	case s.Version != storedVersion:
		return nil, fmt.Errorf("%s: version %d, this program reads %d", file, s.Version, storedVersion)
	case s.AccessKey == "" || s.SecretKey == "":
		return nil, fmt.Errorf("%s: no keys in it", file)
	}
	if s.APIURL, err = cleanAPIURL(s.APIURL); err != nil {
		return nil, fmt.Errorf("%s: apiUrl: %w", file, err)
	}
	return &s, tighten(file)
}

func saveStored(dir string, s *stored) error {
	s.Version = storedVersion
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, fileCredentials), append(b, '\n'), 0o600)
}

// tighten takes a file away from group and others.
func tighten(file string) error {
	fi, err := os.Stat(file)
	if err != nil || fi.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(file, 0o600)
}

// registrationKey returns the host's key, making it where there is none: 64 random bytes in hex.
func (j *joiner) registrationKey() (string, error) {
	file := filepath.Join(j.cfg.StateDir, fileKey)
	key, found, err := readToken(file)
	if err != nil {
		return "", err
	}
	if found && len(key) >= 16 {
		return key, tighten(file)
	}
	if found {
		j.notice(NoticeIdentity, fmt.Sprintf("%s does not hold a registration key: made a new one", file))
	}
	key = hex.EncodeToString(random(64))
	return key, atomicfile.Write(file, []byte(key+"\n"), 0o600)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: the program would end
	return b
}

// readToken reads a file that holds one word, tolerating space around it. found without a word says that there is a
// file whose content is no such thing.
func readToken(file string) (word string, found bool, err error) {
	b, err := readBounded(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	word = strings.TrimSpace(strings.TrimPrefix(string(b), "\ufeff"))
	if !isToken(word) {
		return "", true, nil
	}
	return word, true, nil
}

// isToken reports whether a word is fit for a header, a URL and a log line.
func isToken(word string) bool {
	if word == "" || len(word) > 512 {
		return false
	}
	for i := range len(word) {
		if word[i] <= ' ' || word[i] >= 0x7f {
			return false
		}
	}
	return true
}

// prepareDir makes the state directory. One that exists is left as it is: it may be a mount, or somebody else's.
func (j *joiner) prepareDir() error {
	dir := j.cfg.StateDir
	if dir == "" {
		return errors.New("no state directory given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if fi.Mode().Perm()&0o022 != 0 {
		j.notice(NoticeIdentity, fmt.Sprintf("others may write to the state directory %s (%v): they can replace this host's identity and credentials", dir, fi.Mode().Perm()))
	}
	return nil
}

// credentials turns what is stored into a result.
func (s *stored) fill(r *Result) {
	r.Source, r.APIURL, r.AccessKey, r.SecretKey = SourceStored, s.APIURL, s.AccessKey, secret.New(s.SecretKey)
}
