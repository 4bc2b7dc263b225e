package pods

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

const (
	zoneinfo    = "/usr/share/zoneinfo/"
	unknownZone = "UNKNOWN"
)

// timezone finds out the time zone of a container as the C library in it does: the variable TZ, else /etc/localtime,
// else UTC.
func timezone(c *runtime.Container) runtime.TzInfo {
	tz := runtime.TzInfo{EnvTz: c.Env["TZ"]}
	if host, err := runtime.TransferToHostPathForContainer(c, "/etc/localtime", false); err == nil {
		if link, err := os.Readlink(host); err == nil {
			tz.EtcLocaltime = link
		}
	}
	if loc, name := fromEnv(c, tz.EnvTz); loc != nil {
		return described(tz, loc, name)
	}
	data, err := readInside(c, "/etc/localtime")
	if err != nil {
		if loc := byName(c, zoneName(tz.EtcLocaltime)); loc != nil { // a link to what this process sees itself
			return described(tz, loc, zoneName(tz.EtcLocaltime))
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, runtime.ErrNotFound) {
			return described(tz, time.UTC, "UTC")
		}
		return tz // the container cannot be seen: nothing is known
	}
	name := zoneName(tz.EtcLocaltime)
	if name == "" {
		name = unknownZone
	}
	loc, err := time.LoadLocationFromTZData(name, data)
	if err != nil {
		return described(tz, time.UTC, "UTC") // as the C library does with a file that it cannot read
	}
	return described(tz, loc, name)
}

func described(tz runtime.TzInfo, loc *time.Location, name string) runtime.TzInfo {
	tz.Zone, tz.Offset = time.Now().In(loc).Zone()
	if tz.Zone == "UTC" {
		name = "UTC"
	}
	tz.Name, tz.TzObj = name, loc
	return tz
}

// zoneName is the IANA name in what /etc/localtime points to, "" if there is none.
func zoneName(link string) string {
	_, name, ok := strings.Cut(path.Clean(link), "zoneinfo/")
	if !ok {
		return ""
	}
	for _, prefix := range []string{"posix/", "right/"} {
		name = strings.TrimPrefix(name, prefix)
	}
	return name
}

// fromEnv understands TZ: a name with or without ":" or its whole path, or the rule itself ("CST-8"). nil: it does not.
func fromEnv(c *runtime.Container, value string) (*time.Location, string) {
	name := strings.TrimPrefix(strings.TrimPrefix(value, ":"), zoneinfo)
	if name == "" {
		return nil, ""
	}
	if loc := byName(c, name); loc != nil {
		return loc, name
	}
	if loc := fromRule(name); loc != nil {
		return loc, name
	}
	return nil, ""
}

var validZone = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,3}$`)
})

// byName loads a zone from the container's own files, else from ours.
func byName(c *runtime.Container, name string) *time.Location {
	if name == "Local" || !validZone().MatchString(name) { // Local would be this process's own
		return nil
	}
	if name == "UTC" {
		return time.UTC
	}
	if data, err := readInside(c, zoneinfo+name); err == nil {
		if loc, err := time.LoadLocationFromTZData(name, data); err == nil {
			return loc
		}
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil
	}
	return loc
}

// rule is a time zone as POSIX writes it, with or without daylight saving.
var rule = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([A-Za-z]{3,9}|<[A-Za-z0-9+-]{3,9}>)[+-]?[0-9]{1,2}(:[0-9]{2}){0,2}(([A-Za-z]{3,9}|<[A-Za-z0-9+-]{3,9}>)([+-]?[0-9]{1,2}(:[0-9]{2}){0,2})?,[^,]{1,20},[^,]{1,20})?$`)
})

// fromRule makes a time zone of a POSIX rule: the rule is the footer of a file without any other content.
func fromRule(text string) *time.Location {
	if !rule().MatchString(text) {
		return nil
	}
	header := func(b *bytes.Buffer) {
		b.WriteString("TZif2")
		b.Write(make([]byte, 15))
		// No UTC and standard indicators, leap seconds and transitions; one type whose name has one character.
		for _, n := range []uint32{0, 0, 0, 0, 1, 1} {
			b.Write(binary.BigEndian.AppendUint32(nil, n))
		}
		b.Write(make([]byte, 6)) // the type: offset 0, no daylight saving, name at 0
		b.WriteByte(0)           // the name
	}
	var b bytes.Buffer
	header(&b) // in the old form
	header(&b) // in the new one
	b.WriteString("\n" + text + "\n")
	loc, err := time.LoadLocationFromTZData(text, b.Bytes())
	if err != nil {
		return nil
	}
	if name, _ := time.Now().In(loc).Zone(); name == "" {
		return nil // the footer was not understood
	}
	return loc
}
