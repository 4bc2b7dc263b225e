package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/image"

	"github.com/droverhq/drover/runtime"
)

// maxPrune bounds a prune, which tells nothing until it is done.
const maxPrune = time.Hour

// A usedImage is a row of the daemon's account of its disk.
type usedImage struct {
	ID         string
	RepoTags   []string
	Labels     map[string]string
	Created    int64
	Size       int64
	SharedSize int64
	Containers int
}

// PruneImages removes images that no container uses. What would go is worked out here, as the daemon has no dry run;
// the removal itself is the daemon's, which never takes an image in use.
func (e *Engine) PruneImages(parent context.Context, opts runtime.PruneOptions) (runtime.PruneReport, error) {
	const op = "prune images"
	report := runtime.PruneReport{Images: []runtime.PrunedImage{}, Untagged: []string{}, Deleted: []string{}}
	for _, l := range slices.Concat(opts.Labels, opts.NotLabels) {
		if key, _, _ := strings.Cut(l, "="); key == "" {
			return report, invalid(op, "%q is no label", shorten(l))
		}
	}
	s, err := e.opened(parent, op)
	if err != nil {
		return report, err
	}
	ctx, cancel := context.WithTimeout(parent, maxPrune)
	defer cancel()
	var usage struct{ Images []usedImage }
	if err := e.slowJSON(ctx, s, http.MethodGet, "/system/df", "", &usage); err != nil {
		return report, e.wrapLong(parent, op, err)
	}
	for _, u := range usage.Images {
		if !prunable(&u, &opts) {
			continue
		}
		u.RepoTags = slices.DeleteFunc(u.RepoTags, func(t string) bool { return t == "<none>:<none>" })
		img := runtime.PrunedImage{ID: u.ID, RepoTags: append([]string{}, u.RepoTags...), Created: time.Unix(u.Created, 0).UTC(), Size: u.Size, Unique: u.Size - max(0, u.SharedSize)}
		report.Images = append(report.Images, img)
		report.Bytes += img.Unique
	}
	slices.SortFunc(report.Images, func(a, b runtime.PrunedImage) int {
		return cmp.Or(cmp.Compare(b.Unique, a.Unique), strings.Compare(a.ID, b.ID))
	})
	if opts.DryRun {
		return report, nil
	}
	var done struct {
		ImagesDeleted  []image.DeleteResponse
		SpaceReclaimed int64
	}
	if err := e.slowJSON(ctx, s, http.MethodPost, "/images/prune", pruneQuery(&opts), &done); err != nil {
		return report, e.wrapLong(parent, op, err)
	}
	removal := removalOf(done.ImagesDeleted)
	report.Untagged, report.Deleted, report.Bytes = removal.Untagged, removal.Deleted, done.SpaceReclaimed
	report.Images = slices.DeleteFunc(report.Images, func(i runtime.PrunedImage) bool { return !slices.Contains(removal.Deleted, i.ID) })
	return report, nil
}

// slowJSON sends one request of a call that may take long and decodes the answer.
func (e *Engine) slowJSON(ctx context.Context, s *session, method, path, query string, v any) error {
	resp, err := e.request(ctx, e.long, s, method, path, query, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxBody)).Decode(v)
}

func pruneQuery(opts *runtime.PruneOptions) string {
	filters := map[string][]string{"dangling": {strconv.FormatBool(!opts.All)}}
	if !opts.Until.IsZero() {
		filters["until"] = []string{strconv.FormatInt(opts.Until.Unix(), 10)}
	}
	if len(opts.Labels) > 0 {
		filters["label"] = opts.Labels
	}
	if len(opts.NotLabels) > 0 {
		filters["label!"] = opts.NotLabels
	}
	encoded, _ := json.Marshal(filters) // strings always encode
	return url.Values{"filters": {string(encoded)}}.Encode()
}

// prunable tells whether the daemon would prune an image.
func prunable(u *usedImage, opts *runtime.PruneOptions) bool {
	dangling := !slices.ContainsFunc(u.RepoTags, func(t string) bool { return t != "<none>:<none>" })
	has := func(l string) bool {
		key, value, valued := strings.Cut(l, "=")
		got, ok := u.Labels[key]
		return ok && (!valued || got == value)
	}
	switch {
	case u.Containers > 0, !opts.All && !dangling:
		return false
	case !opts.Until.IsZero() && u.Created >= opts.Until.Unix():
		return false
	}
	return !slices.ContainsFunc(opts.Labels, func(l string) bool { return !has(l) }) && !slices.ContainsFunc(opts.NotLabels, has)
}
