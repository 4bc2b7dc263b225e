package api

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/droverhq/drover/server/store"
)

// SettingBootstrapped says when the admin key was made. It is no setting for people.
const SettingBootstrapped = "drover.bootstrapped"

// The settings that people may change.
const (
	settingHost  = "api.host"    // the address that agents are told
	settingImage = "agent.image" // the image of the one-liner
)

// settingVersion is shown among the settings and cannot be changed.
const settingVersion = "drover.server.version"

// defaults are the settings with what they are where nobody changed them.
func (h *Handler) defaults() map[string]string {
	return map[string]string{settingHost: h.cfg.PublicURL, settingImage: h.cfg.Image, settingVersion: h.cfg.Version}
}

// setting returns what somebody set, or "".
func (h *Handler) setting(name string) string {
	if s, err := h.store.Settings.Get(name); err == nil {
		return s.Value
	}
	return ""
}

// checkSetting returns the value in the form in which it is kept.
func checkSetting(name, value string) (string, error) {
	switch name {
	case settingHost:
		u, err := url.Parse(value)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !isHost(u.Host) || strings.Trim(u.Path, "/") != "" {
			return "", invalid("InvalidFormat", "value", "%q is no address like https://drover.example:8443", value)
		}
		return u.Scheme + "://" + u.Host, nil
	case settingImage:
		// The image becomes part of a command that people paste into a shell.
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return !strings.ContainsRune(imageChars, r) }) {
			return "", invalid("InvalidFormat", "value", "%q is no image", value)
		}
		return value, nil
	}
	return "", forbidden("the setting %s cannot be changed", name)
}

const imageChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@"

func (h *Handler) settingEndpoint() *endpoint {
	show := func(name string) (*resource, error) {
		value, known := h.defaults()[name]
		if !known {
			return nil, notFound()
		}
		res := &resource{typ: "setting", id: name, fields: map[string]any{
			"name": name, "value": value, "activeValue": value, "source": "Default", "inDb": false,
		}}
		if v := h.setting(name); v != "" {
			res.fields["value"], res.fields["activeValue"], res.fields["source"], res.fields["inDb"] = v, v, "Database", true
		}
		return res, nil
	}
	return &endpoint{
		list: func(q *request) ([]*resource, error) {
			var out []*resource
			for _, name := range slices.Sorted(maps.Keys(h.defaults())) {
				res, _ := show(name) // a known name
				out = append(out, res)
			}
			return out, nil
		},
		get: func(q *request, id string) (*resource, error) { return show(id) },
		update: func(q *request, id string, fields map[string]any) (*resource, error) {
			if _, err := show(id); err != nil {
				return nil, err
			}
			given, ok := fields["value"].(string)
			if !ok {
				return nil, invalid("MissingRequired", "value", "value is missing")
			}
			value, err := checkSetting(id, given)
			if err != nil {
				return nil, err
			}
			_, err = h.store.Settings.Create(q.ctx(), store.Setting{Meta: store.Meta{ID: id}, Value: value})
			if errors.Is(err, store.ErrExists) {
				_, err = h.store.Settings.Update(q.ctx(), id, func(s *store.Setting) error { s.Value = value; return nil })
			}
			if err != nil {
				return nil, fromCompute(err)
			}
			return show(id)
		},
		remove: func(q *request, id string) (*resource, error) {
			if _, err := show(id); err != nil {
				return nil, err
			}
			if err := h.store.Settings.Delete(q.ctx(), id, 0); err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, fromCompute(err)
			}
			return show(id)
		},
	}
}
