package runtimetest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

var imageTests = []test{
	{"Inspect", func(e *env) {
		config, err := e.engine.ImageConfig(e.ctx, e.opts.Image)
		e.must("ImageConfig", err)
		if config.ID == "" || len(config.Cmd) == 0 || !slices.Contains(config.RepoTags, e.opts.Image) {
			e.Errorf("ImageConfig: %+v", config)
		}
		for _, ref := range []string{e.opts.Image, config.ID} {
			raw, err := e.engine.InspectImage(e.ctx, ref)
			e.must("InspectImage "+ref, err)
			var img struct{ ID string }
			if err := json.Unmarshal(raw, &img); err != nil || img.ID != config.ID {
				e.Errorf("InspectImage %s: id %q, error %v", ref, img.ID, err)
			}
		}
		_, err = e.engine.InspectImage(e.ctx, "no.such.registry.invalid/x:1")
		e.want("an unknown image", err, runtime.ErrNotFound)
		_, err = e.engine.ImageConfig(e.ctx, "no.such.registry.invalid/x:1")
		e.want("an unknown image", err, runtime.ErrNotFound)
		for _, ref := range []string{"", "../containers/x", "a b", "x?y=z", "UPPER"} {
			_, err = e.engine.InspectImage(e.ctx, ref)
			e.want("the reference "+ref, err, runtime.ErrInvalid)
		}
	}},
	{"TagRemoveList", func(e *env) {
		config, err := e.engine.ImageConfig(e.ctx, e.opts.Image)
		e.must("ImageConfig", err)
		target := e.name() + ":second"
		e.must("TagImage", e.engine.TagImage(e.ctx, e.opts.Image, target))
		e.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_ = e.engine.RemoveImage(ctx, target, false)
		})
		tagged, err := e.engine.ImageConfig(e.ctx, target)
		if err != nil || tagged.ID != config.ID {
			e.Errorf("the second name: id %s, error %v", tagged.ID, err)
		}
		list, err := e.engine.ListImages(e.ctx)
		e.must("ListImages", err)
		i := slices.IndexFunc(list, func(s runtime.ImageSummary) bool { return s.ID == config.ID })
		if i < 0 || !slices.Contains(list[i].RepoTags, target) || !slices.Contains(list[i].RepoTags, e.opts.Image) {
			e.Errorf("ListImages lacks the image or a name of it: %+v", list)
		}
		e.must("RemoveImage", e.engine.RemoveImage(e.ctx, target, false))
		e.want("RemoveImage again", e.engine.RemoveImage(e.ctx, target, false), runtime.ErrNotFound)
		_, err = e.engine.ImageConfig(e.ctx, e.opts.Image)
		e.noError("the first name after the second is gone", err)
		e.want("TagImage of an unknown image", e.engine.TagImage(e.ctx, "no.such.registry.invalid/x:1", target), runtime.ErrNotFound)
		e.want("TagImage with no reference", e.engine.TagImage(e.ctx, e.opts.Image, "A B"), runtime.ErrInvalid)
	}},
}

var pullTests = []test{
	{"Good", func(e *env) {
		reg, ok := e.registry()
		if !ok {
			return
		}
		var steps []runtime.PullProgress
		e.must("Pull", e.engine.Pull(e.ctx, runtime.PullRequest{Ref: reg.Good}, func(p runtime.PullProgress) { steps = append(steps, p) }))
		_, err := e.engine.ImageConfig(e.ctx, reg.Good)
		e.noError("the image after the pull", err)
		layers := map[string]bool{}
		for _, p := range steps {
			if p.Status == "" {
				e.Errorf("a step without a status: %+v", p)
			}
			if p.Layer != "" {
				layers[p.Layer] = true
			}
		}
		if len(layers) == 0 {
			e.Errorf("no progress of a layer: %+v", steps)
		}
		e.must("Pull again, without a callback", e.engine.Pull(e.ctx, runtime.PullRequest{Ref: reg.Good}, nil))
	}},
	{"Missing", func(e *env) {
		if reg, ok := e.registry(); ok {
			e.want("Pull", e.engine.Pull(e.ctx, runtime.PullRequest{Ref: reg.Missing}, nil), runtime.ErrNotFound)
		}
		e.want("Pull of no reference", e.engine.Pull(e.ctx, runtime.PullRequest{Ref: "A B"}, nil), runtime.ErrInvalid)
	}},
	{"Broken", func(e *env) {
		reg, ok := e.registry()
		if !ok {
			return
		}
		// The engine may retry for a while before it gives up; any error will do, but an error it must be.
		if err := e.engine.Pull(e.ctx, runtime.PullRequest{Ref: reg.Broken}, nil); err == nil {
			e.Error("a pull that broke off in the middle is a success")
		} else if strings.Contains(err.Error(), "\n") {
			e.Errorf("the error has more than one line: %q", err)
		}
		_, err := e.engine.ImageConfig(e.ctx, reg.Broken)
		e.want("the image after the pull", err, runtime.ErrNotFound)
	}},
	{"Stalled", func(e *env) {
		reg, ok := e.registry()
		if !ok {
			return
		}
		began := time.Now()
		err := e.engine.Pull(e.ctx, runtime.PullRequest{Ref: reg.Stalled, Inactivity: 2 * time.Second}, nil)
		if err == nil || !strings.Contains(err.Error(), "progress") {
			e.Errorf("a pull without progress: %v after %v", err, time.Since(began))
		}
	}},
	{"Cancel", func(e *env) {
		reg, ok := e.registry()
		if !ok {
			return
		}
		ctx, cancel := context.WithTimeout(e.ctx, time.Second)
		defer cancel()
		began := time.Now()
		err := e.engine.Pull(ctx, runtime.PullRequest{Ref: reg.Stalled}, nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 30*time.Second {
			e.Errorf("a pull whose ctx ends: %v after %v", err, time.Since(began))
		}
	}},
	{"Auth", func(e *env) {
		reg, ok := e.registry()
		if !ok {
			return
		}
		if err := e.engine.Pull(e.ctx, runtime.PullRequest{Ref: reg.Private}, nil); err == nil {
			e.Error("a private image was pulled without credentials")
		}
		wrong := reg.Auth
		wrong.Password = "wrong-secret-7"
		if err := e.engine.Pull(e.ctx, runtime.PullRequest{Ref: reg.Private, Auth: &wrong}, nil); err == nil {
			e.Error("a private image was pulled with wrong credentials")
		} else if strings.Contains(err.Error(), "wrong-secret-7") {
			e.Errorf("the error shows the password: %v", err)
		}
		e.must("Pull", e.engine.Pull(e.ctx, runtime.PullRequest{Ref: reg.Private, Auth: &reg.Auth}, nil))
	}},
}

// registry makes one, and removes what was pulled from it.
func (e *env) registry() (Registry, bool) {
	if e.opts.Registry == nil {
		return Registry{}, false
	}
	reg := e.opts.Registry(e.T)
	e.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, ref := range []string{reg.Good, reg.Private, reg.Broken, reg.Stalled} {
			err := e.engine.RemoveImage(ctx, ref, true)
			if err != nil && !errors.Is(err, runtime.ErrNotFound) {
				e.Errorf("remove %s: %v", ref, err)
			}
		}
	})
	return reg, true
}

var volumeTests = []test{
	{"CreateInspectRemove", func(e *env) {
		v, ok := e.engine.(runtime.Volumes)
		if !ok {
			return
		}
		name := e.name()
		spec := runtime.VolumeSpec{Name: name, Labels: map[string]string{"a": "1"}}
		made, err := v.CreateVolume(e.ctx, spec)
		e.must("CreateVolume", err)
		e.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_ = v.RemoveVolume(ctx, name, true)
		})
		if made.Name != name || made.Driver != "local" || made.Mountpoint == "" || made.Labels["a"] != "1" {
			e.Errorf("CreateVolume: %+v", made)
		}
		again, err := v.CreateVolume(e.ctx, spec)
		if err != nil || again.Name != name {
			e.Errorf("CreateVolume again: %+v, %v", again, err)
		}
		found, err := v.InspectVolume(e.ctx, name)
		if err != nil || found.Mountpoint != made.Mountpoint {
			e.Errorf("InspectVolume: %+v, %v", found, err)
		}
		list, err := v.ListVolumes(e.ctx)
		e.must("ListVolumes", err)
		if !slices.ContainsFunc(list, func(v runtime.Volume) bool { return v.Name == name }) {
			e.Error("ListVolumes lacks the volume")
		}
		container := e.spec()
		container.Binds = []string{name + ":/data"}
		id := e.create(container)
		e.want("RemoveVolume of one in use", v.RemoveVolume(e.ctx, name, false), runtime.ErrConflict)
		e.must("Remove", e.engine.Remove(e.ctx, id, runtime.RemoveOptions{Volumes: true}))
		_, err = v.InspectVolume(e.ctx, name)
		e.noError("a named volume after its container is gone", err)
		e.must("RemoveVolume", v.RemoveVolume(e.ctx, name, false))
		e.want("RemoveVolume again", v.RemoveVolume(e.ctx, name, false), runtime.ErrNotFound)
		_, err = v.InspectVolume(e.ctx, name)
		e.want("InspectVolume", err, runtime.ErrNotFound)
		_, err = v.InspectVolume(e.ctx, "../x")
		if err == nil {
			e.Error("InspectVolume takes a path")
		}
	}},
	{"Anonymous", func(e *env) {
		v, ok := e.engine.(runtime.Volumes)
		if !ok {
			return
		}
		for _, remove := range []bool{true, false} {
			spec := e.spec()
			spec.Volumes = map[string]struct{}{"/data": {}}
			id := e.create(spec)
			raw, err := e.engine.Inspect(e.ctx, id)
			e.must("Inspect", err)
			var c struct {
				Mounts []struct{ Name, Destination string }
			}
			e.must("Unmarshal", json.Unmarshal(raw, &c))
			if len(c.Mounts) != 1 || c.Mounts[0].Destination != "/data" {
				e.Fatalf("mounts: %+v", c.Mounts)
			}
			name := c.Mounts[0].Name
			e.must("Remove", e.engine.Remove(e.ctx, id, runtime.RemoveOptions{Volumes: remove}))
			_, err = v.InspectVolume(e.ctx, name)
			if remove {
				e.want("the anonymous volume", err, runtime.ErrNotFound)
				continue
			}
			e.noError("the anonymous volume", err)
			e.noError("RemoveVolume", v.RemoveVolume(e.ctx, name, false))
		}
	}},
}
