package docker

import (
	"strings"

	"github.com/distribution/reference"
)

// containerID checks and cleans the id or name of a container. What is not one would change the path of the request.
func containerID(op, id string) (string, error) {
	id = strings.TrimPrefix(id, "/")
	if id == "" || len(id) > 256 {
		return "", invalid(op, "%q is no id or name of a container", shorten(id))
	}
	for i := range len(id) {
		c := id[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return "", invalid(op, "%q is no id or name of a container", shorten(id))
		}
	}
	return id, nil
}

// imageRef checks a reference or id of an image.
func imageRef(op, ref string) (string, error) {
	if len(ref) > 1024 {
		return "", invalid(op, "%q is no image reference", shorten(ref))
	}
	if _, err := reference.ParseAnyReference(ref); err != nil {
		return "", invalid(op, "%q is no image reference: %v", shorten(ref), err)
	}
	return ref, nil
}

// volumeName checks the name of a volume.
func volumeName(op, name string) (string, error) {
	if name == "" || name == "." || name == ".." || len(name) > 1024 || strings.ContainsAny(name, "/\\\x00") {
		return "", invalid(op, "%q is no name of a volume", shorten(name))
	}
	return name, nil
}

func shorten(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "..."
	}
	return s
}
