package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// podPrefix begins a name that is relative to the log files of a pod: pod:NAME/CONTAINER/FILE, or
// pod:NAMESPACE:NAME/CONTAINER/FILE where pods of several namespaces have the name.
const podPrefix = "pod:"

// Pods tells where the log files of this node's pods are. It must not block, and what it returns is not changed.
type Pods interface {
	// Pods returns all pods of the node.
	Pods() []Pod
	// Named returns the pods of a name, one a namespace at most.
	Named(name string) []Pod
}

// A Pod is one pod of the node.
type Pod struct {
	Namespace  string
	Name       string
	Created    time.Time
	Containers []PodContainer
}

// A PodContainer is a container with a log file.
type PodContainer struct {
	Name string // in the pod
	ID   string // of the engine
	Log  string // the file that is written now: absolute, as the host knows it
}

// isPod tells a name of a pod's file from a path.
func (j Jail) isPod(name string) bool { return j.Pods != nil && strings.HasPrefix(name, podPrefix) }

// A podError says what is wrong with the name of a pod's file; it is one of another kind for programs.
type podError struct {
	text string
	kind error
}

func (e *podError) Error() string { return e.text }
func (e *podError) Unwrap() error { return e.kind }

func noPod(format string, args ...any) error {
	return &podError{text: fmt.Sprintf(format, args...), kind: fs.ErrNotExist}
}

// A podPlace is what a name that begins with pod: means: all pods, a pod, a container, or one of its files.
type podPlace struct {
	pods      []Pod // of the node, where the name is "pod:"
	pod       *Pod
	container *PodContainer
	file      string // below the container's log folder; "" is the container itself
}

// pod resolves a name that begins with pod:. The container may be left out where a pod has one only.
func (j Jail) pod(name string) (podPlace, error) {
	rest := strings.TrimSuffix(strings.TrimPrefix(name, podPrefix), "/")
	if rest == "" {
		return podPlace{pods: j.Pods.Pods()}, nil
	}
	parts := strings.Split(rest, "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." {
			return podPlace{}, &podError{"a name in a pod has no empty, . or .. component", ErrOutside}
		}
	}
	namespace, pod, qualified := strings.Cut(parts[0], ":")
	if !qualified {
		namespace, pod = "", namespace
	}
	var found []Pod
	for _, p := range j.Pods.Named(pod) {
		if !qualified || p.Namespace == namespace {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return podPlace{}, noPod("no pod %s on this node", parts[0])
	}
	if len(found) > 1 {
		return podPlace{}, noPod("%d namespaces have a pod %s: write %s%s:%s", len(found), pod, podPrefix, found[0].Namespace, pod)
	}
	place := podPlace{pod: &found[0]}
	containers := place.pod.Containers
	parts = parts[1:]
	if len(parts) == 0 {
		return place, nil
	}
	if i := slices.IndexFunc(containers, func(c PodContainer) bool { return c.Name == parts[0] }); i >= 0 {
		place.container, parts = &containers[i], parts[1:]
	} else if len(containers) == 1 {
		place.container = &containers[0]
	} else {
		return podPlace{}, noPod("pod %s has no container %s", pod, parts[0])
	}
	place.file = path.Join(parts...)
	return place, nil
}

// current turns a container, or a pod with one container, into the file that it writes now. After a restart of the
// container that is another file: a follow goes on there as after a rotation.
func (p podPlace) current() (podPlace, error) {
	switch {
	case p.pod == nil:
		return p, errIsDir
	case p.container == nil && len(p.pod.Containers) != 1:
		return p, noPod("the pod has %d containers: name one", len(p.pod.Containers))
	case p.container == nil:
		p.container = &p.pod.Containers[0]
	}
	if p.file == "" {
		p.file = path.Base(p.container.Log)
	}
	return p, nil
}

// logName tells the log files in a container's folder from what else an engine keeps there, such as its environment.
func logName(name string) bool {
	return strings.HasSuffix(name, ".log") || strings.Contains(name, ".log.")
}

// inContainer calls f with a root that holds the container's log folder, and the path of the place below it. Unlike
// the configured roots the folder may be within reach of a container that mounts /var/log, so links in its last two
// components and below are followed nowhere but inside it, and to the engine's own file of this very container.
func (j Jail) inContainer(p podPlace, f func(root *os.Root, rel string) error) error {
	dir := path.Dir(path.Clean(p.container.Log))
	if !path.IsAbs(dir) || strings.Count(dir, "/") < 3 {
		return ErrOutside // no engine keeps logs so near to the root
	}
	if p.file != "" && (strings.Contains(p.file, "/") || !logName(p.file)) {
		return &podError{"no log file of the container", ErrOutside}
	}
	folder := Jail{Prefix: j.Prefix, Roots: []string{path.Dir(path.Dir(dir))}, only: dir, linked: p.container.ID}
	return folder.within(path.Join(dir, p.file), f)
}

// A podEntry is a pod or container in a listing.
type podEntry struct {
	name string
	time time.Time
}

func (e podEntry) Name() string       { return e.name }
func (e podEntry) Size() int64        { return 0 }
func (e podEntry) Mode() fs.FileMode  { return fs.ModeDir | 0o555 }
func (e podEntry) ModTime() time.Time { return e.time }
func (e podEntry) IsDir() bool        { return true }
func (e podEntry) Sys() any           { return nil }

// openPod opens a log file of a pod.
func (j Jail) openPod(name string, open func(root *os.Root, rel string) error) error {
	place, err := j.pod(name)
	if err == nil {
		place, err = place.current()
	}
	if err != nil {
		return err
	}
	return j.inContainer(place, open)
}

// statPod describes a pod, a container or a log file.
func (j Jail) statPod(name string) (fs.FileInfo, error) {
	place, err := j.pod(name)
	switch {
	case err != nil:
		return nil, err
	case place.pod == nil:
		return podEntry{name: podPrefix}, nil
	case place.container == nil:
		return podEntry{name: place.pod.Name, time: place.pod.Created}, nil
	case place.file == "":
		return podEntry{name: place.container.Name, time: place.pod.Created}, nil
	}
	var info fs.FileInfo
	err = j.inContainer(place, func(root *os.Root, rel string) (err error) {
		info, err = root.Stat(rel)
		return err
	})
	return info, err
}

// readPod lists the pods, the containers of a pod, or the log files of a container.
func (j Jail) readPod(name string, limit int) ([]fs.FileInfo, error) {
	place, err := j.pod(name)
	if err != nil {
		return nil, err
	}
	var infos []fs.FileInfo
	switch {
	case place.pod == nil:
		for _, p := range place.pods {
			entry := podEntry{name: p.Name, time: p.Created}
			if len(j.Pods.Named(p.Name)) > 1 {
				entry.name = p.Namespace + ":" + p.Name
			}
			infos = append(infos, entry)
		}
	case place.container == nil:
		for _, c := range place.pod.Containers {
			infos = append(infos, podEntry{name: c.Name, time: place.pod.Created})
		}
	case place.file != "":
		return nil, errors.New("not a directory")
	default:
		err := j.inContainer(place, func(root *os.Root, rel string) (err error) {
			infos, err = readDir(root, rel, limit)
			return err
		})
		if err != nil {
			return nil, err
		}
		infos = slices.DeleteFunc(infos, func(fi fs.FileInfo) bool { return !logName(fi.Name()) })
	}
	if len(infos) > limit {
		return nil, fmt.Errorf("more than %d entries", limit)
	}
	return infos, nil
}

// globStart splits a pattern for names in a pod: where the search begins, and the components to match below.
func (j Jail) globStart(pattern string) (name string, parts []string, err error) {
	parts = strings.Split(strings.TrimSuffix(pattern, "/"), "/")
	name, parts = parts[0], parts[1:]
	if strings.ContainsAny(name, `*?[\`) {
		return "", nil, errors.New("a pod is named without a pattern")
	}
	place, err := j.pod(name)
	if err != nil || place.pod == nil || len(place.pod.Containers) != 1 || len(parts) != 1 {
		return name, parts, err
	}
	only := place.pod.Containers[0].Name
	if ok, err := path.Match(parts[0], only); err == nil && !ok {
		name += "/" + only // a pod with one container: its name may be left out
	}
	return name, parts, nil
}
