package api

import "strings"

// What may stand in paths, links and scripts. These are loops and no regular expressions: an agent links this package,
// and compiling patterns it never uses was a tenth of its start (ADR 0008).

const (
	lowerCase = "abcdefghijklmnopqrstuvwxyz"
	upperCase = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits    = "0123456789"
	letters   = lowerCase + upperCase
)

// consists reports whether s has 1 to most characters, all of them in set.
func consists(s string, most int, set string) bool {
	return s != "" && len(s) <= most && strings.Trim(s, set) == ""
}

// isID reports whether s may be an id. Names of settings are ids as well.
func isID(s string) bool {
	return consists(s, 128, letters+digits+"._-") && !strings.ContainsRune("._-", rune(s[0]))
}

// isToken reports whether s may be a registration token. It is written into a script that a shell evaluates.
func isToken(s string) bool {
	public, rest, _ := strings.Cut(s, ":")
	stamp, sig, ok := strings.Cut(rest, ":")
	return ok && consists(public, 64, letters+digits) && consists(stamp, 20, digits) && consists(sig, 128, letters+digits+"_-")
}

func isEventName(s string) bool { return consists(s, 200, letters+digits+"*._;=-") }

// isVersion reports whether s, the first segment of a path, names a version of the API.
func isVersion(s string) bool {
	return len(s) > 1 && (s[0] == 'v' || s[0] == 'V') && '0' <= s[1] && s[1] <= '9'
}

// isHost reports whether s may be a Host header. It goes into links, and into a script that a shell evaluates.
func isHost(s string) bool {
	name, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		name, port = s[:i], s[i+1:]
		if !consists(port, 5, digits) {
			return false
		}
	}
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		return consists(name[1:len(name)-1], 255, digits+"ABCDEFabcdef:.")
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if !consists(label, 255, letters+digits+"_-") {
			return false
		}
	}
	return true
}
