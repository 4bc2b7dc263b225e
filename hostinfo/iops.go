package hostinfo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// IOPS are the operations a second that a disk was measured to do.
type IOPS struct {
	Read  float64 `json:"read"`
	Write float64 `json:"write"`
}

// fioReport is the part of fio's JSON output that is used.
type fioReport struct {
	Jobs []struct {
		Read  struct{ IOPS float64 } `json:"read"`
		Write struct{ IOPS float64 } `json:"write"`
	} `json:"jobs"`
	DiskUtil []struct {
		Name string `json:"name"`
	} `json:"disk_util"`
}

// readIOPS reads the two reports of fio that an operator may have left in the state directory. None is no error.
func readIOPS(dir string) (map[string]IOPS, error) {
	if dir == "" {
		return nil, nil
	}
	var r, w fioReport
	for name, v := range map[string]*fioReport{"read.json": &r, "write.json": &w} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if len(v.Jobs) == 0 || len(v.DiskUtil) == 0 || v.DiskUtil[0].Name == "" {
			return nil, fmt.Errorf("%s: no job or no disk in it", name)
		}
	}
	return map[string]IOPS{"/dev/" + r.DiskUtil[0].Name: {Read: r.Jobs[0].Read.IOPS, Write: w.Jobs[0].Write.IOPS}}, nil
}
