package hostinfo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// readCloudLabels reads info.json of the state directory, {"label":{...}}, which says where a host of a cloud provider
// is. None is no error.
func readCloudLabels(dir string) (map[string]string, error) {
	if dir == "" {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(dir, "info.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var info struct {
		Label map[string]string `json:"label"`
	}
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err != nil {
		return nil, fmt.Errorf("info.json: %w", err)
	}
	return info.Label, nil
}
