package api

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha1" //nolint:gosec // what Rancher's scripts check a download with
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// configPath is where the scripts of an original agent's image fetch what they install.
const configPath = "configcontent"

// latestConfig is what an agent may report as applied in place of the version that it was given.
const latestConfig = "latest"

// installHostConfig puts the key of host access where the original agent reads it, and makes it start again if that is
// another one than before.
const installHostConfig = `#!/bin/sh
set -e
cd "$(dirname "$0")"
home=${CATTLE_HOME:-/var/lib/cattle}
new=content-home/etc/cattle/api.crt
if ! cmp -s "$new" "$home/etc/cattle/api.crt"; then
    mkdir -p "$home/etc/cattle"
    cp "$new" "$home/etc/cattle/api.crt"
    touch "$home/.pyagent-stamp"
fi
`

const installPyagent = `#!/bin/sh
# This server is Drover and brings no packages for the original agent.
exit 0
`

// configItem returns the files of an item, by path; nil if there is no such item.
func (q *request) configItem(name string) map[string]string {
	switch name {
	case "configscripts":
		return map[string]string{"config.sh": q.h.bootstrap(q.client)} // hands the host over
	case "host-config":
		return map[string]string{"apply.sh": installHostConfig, "content-home/etc/cattle/api.crt": string(q.h.cfg.APICert)}
	case "pyagent":
		return map[string]string{"apply.sh": installPyagent, "packages": ""}
	}
	return nil
}

func isConfigContent(segs []string) bool { return len(segs) == 2 && lower(segs[0]) == configPath }

// serveConfigContent answers with an item as a tar, or takes the word of an agent that it is applied.
func (q *request) serveConfigContent(item string) error {
	if q.who.kind != kindAgent {
		return notFound()
	}
	files := q.configItem(item)
	if files == nil {
		return notFound()
	}
	version := configVersion(files)
	query := q.r.URL.Query()
	switch {
	case isGet(q.r):
		if query.Get("current") == version {
			files = map[string]string{"uptodate": ""}
		} else {
			files["version"] = version
		}
		body, err := packConfig(item+"-"+version, files)
		if err != nil {
			return err
		}
		writeText(q.w, "application/octet-stream", body)
	case q.r.Method == http.MethodPut:
		if v := query.Get("version"); v != version && v != latestConfig {
			return invalid("InvalidOption", "version", "this server's %s is %s", item, version)
		}
		q.w.WriteHeader(http.StatusOK)
	default:
		return methodNotAllowed(q.r.Method)
	}
	return nil
}

// configVersion is Rancher's form of a version: a revision and a hash of the source.
func configVersion(files map[string]string) string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%s %d\n%s", name, len(files[name]), files[name])
	}
	return "1-" + hex.EncodeToString(sum.Sum(nil))
}

// packConfig makes a tar with one folder and the sums of its files, and of their sums.
func packConfig(folder string, files map[string]string) ([]byte, error) {
	var sums strings.Builder
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		sums.WriteString(sumLine(folder+"/"+name, files[name]))
	}
	files["SHA1SUMS"] = sums.String()
	files["SHA1SUMSSUM"] = sumLine(folder+"/SHA1SUMS", files["SHA1SUMS"])
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	pack := tar.NewWriter(zip)
	for _, name := range append(names, "SHA1SUMS", "SHA1SUMSSUM") {
		if err := pack.WriteHeader(&tar.Header{
			Name: folder + "/" + name, Mode: 0o644, Uname: "root", Gname: "root", Size: int64(len(files[name])),
			ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatGNU,
		}); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := pack.Write([]byte(files[name])); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := pack.Close(); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func sumLine(path, text string) string {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:]) + " *" + path + "\n"
}
