package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/droverhq/drover/runtime"
)

const (
	// pluginTime bounds one call of a volume plugin. Attaching a disk of a cloud provider takes minutes.
	pluginTime = 5 * time.Minute
	// maxPluginAnswer bounds a plugin's answer, in bytes.
	maxPluginAnswer = 1 << 20
)

// plugins speaks with Rancher's volume plugins, each over a unix socket called after its driver.
type plugins struct{ dir string }

type pluginRequest struct {
	Name string            `json:"Name"`
	Opts map[string]string `json:"Opts,omitempty"`
}

type pluginAnswer struct {
	Mountpoint   string
	Err          string
	Capabilities struct{ Scope string }
}

// flex reports whether the volume's driver attaches and mounts volumes by itself. A Rancher driver whose plugin does
// not run is an error.
func (s plugins) flex(ctx context.Context, v *volume) (bool, error) {
	driver := v.Data.Fields.Driver
	if !pluginDriver(driver) {
		return false, nil
	}
	a, err := s.call(ctx, driver, "Capabilities", v)
	return a.Capabilities.Scope == "flex", err
}

// call runs one method of a driver's plugin. A method that the plugin does not have is an empty success.
func (s plugins) call(ctx context.Context, driver, method string, v *volume) (pluginAnswer, error) {
	var answer pluginAnswer
	socket := filepath.Join(s.dir, driver+".sock")
	if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) {
		return answer, fmt.Errorf("volume driver %s does not run on this host: %w", driver, runtime.ErrUnavailable)
	}
	body, err := json.Marshal(pluginRequest{Name: v.Name, Opts: v.Data.Fields.Options})
	if err != nil {
		return answer, fmt.Errorf("volume driver %s: %w", driver, err)
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://volume-plugin/VolumeDriver."+method, bytes.NewReader(body))
	if err != nil {
		return answer, fmt.Errorf("volume driver %s: %w", driver, err)
	}
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return answer, fmt.Errorf("volume driver %s: %w: %w", driver, runtime.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPluginAnswer))
	if err != nil {
		return answer, fmt.Errorf("volume driver %s: %w", driver, err)
	}
	switch {
	case resp.StatusCode >= 400 && resp.StatusCode < 500:
		return pluginAnswer{}, nil
	case resp.StatusCode >= 300:
		return answer, fmt.Errorf("volume driver %s: %s of volume %s: %s: %s", driver, method, v.Name, resp.Status, oneLine(string(text)))
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return answer, fmt.Errorf("volume driver %s: %s answered no JSON: %w", driver, method, err)
	}
	if answer.Err != "" {
		return answer, fmt.Errorf("volume driver %s: %s of volume %s: %s", driver, method, v.Name, oneLine(answer.Err))
	}
	return answer, nil
}
