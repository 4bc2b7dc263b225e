package register

import (
	"bytes"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"unicode/utf8"
)

// The variables of the env script.
const (
	varAccessKey  = "CATTLE_REGISTRATION_ACCESS_KEY"
	varSecretKey  = "CATTLE_REGISTRATION_SECRET_KEY"
	varURL        = "CATTLE_URL"
	varDetectedIP = "DETECTED_CATTLE_AGENT_IP"
	varAgentIP    = "CATTLE_AGENT_IP"
)

const (
	maxScript     = maxBody
	maxScriptLine = 64 << 10
)

// A ScriptError says why the env script of a registration URL cannot be used. Its text is one line and names where the
// script came from, without the token in the URL.
type ScriptError struct {
	URL     string   // with the token masked
	Status  int      // of the HTTP answer; 0 if there was none
	Missing []string // variables that the script does not set
	Reason  string
	Err     error // what lies below, or nil
}

// Error returns one line.
func (e *ScriptError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "env script from %s: ", e.URL)
	if e.Status != 0 && e.Status != 200 {
		fmt.Fprintf(&b, "HTTP %d: ", e.Status)
	}
	b.WriteString(e.Reason)
	if len(e.Missing) > 0 {
		if e.Reason != "" {
			b.WriteString(": ")
		}
		fmt.Fprintf(&b, "it does not set %s", strings.Join(e.Missing, ", "))
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %s", oneLine(e.Err.Error()))
	}
	return b.String()
}

// Unwrap returns what lies below.
func (e *ScriptError) Unwrap() error { return e.Err }

// script is what an env script says. Secrets are plain here: it does not leave the package.
type script struct {
	accessKey, secretKey, url string
	agentIP                   string // "" only if the caller knows a better one
}

// readScript checks the text of an env script. knowsIP says that the agent's address is known from elsewhere, so that
// the script need not give a good one. Errors are *ScriptError without URL.
func readScript(body []byte, knowsIP bool) (*script, error) {
	vars, err := parseEnvScript(body)
	if err != nil {
		return nil, &ScriptError{Reason: err.Error()}
	}
	var missing []string
	need := []string{varAccessKey, varSecretKey, varURL, varDetectedIP}
	for _, name := range need {
		if vars[name] == "" && !(name == varDetectedIP && (knowsIP || vars[varAgentIP] != "")) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, &ScriptError{Missing: missing, Reason: incomplete(vars, need)}
	}
	api, err := cleanAPIURL(vars[varURL])
	if err != nil {
		return nil, &ScriptError{Reason: fmt.Sprintf("%s: %v", varURL, err)}
	}
	s := &script{accessKey: vars[varAccessKey], secretKey: vars[varSecretKey], url: api}
	name := varAgentIP
	if vars[name] == "" {
		name = varDetectedIP
	}
	ip, ok := cleanIP(vars[name])
	if !ok && !knowsIP {
		return nil, &ScriptError{Reason: fmt.Sprintf("%s: %q is not an IP address; set CATTLE_AGENT_IP to the host's", name, cut(vars[name], 60))}
	}
	s.agentIP = ip
	return s, nil
}

func incomplete(vars map[string]string, need []string) string {
	for _, name := range need {
		if _, ok := vars[name]; ok {
			return "incomplete"
		}
	}
	return "not an env script"
}

// parseEnvScript returns the variables that "export NAME=value" lines of a shell script set. It never evaluates anything: a value
// that a shell would compute is an error, other lines than exports are passed over. A later export wins over an earlier one.
func parseEnvScript(body []byte) (map[string]string, error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	if err := looksLikeScript(body); err != nil {
		return nil, err
	}
	vars := map[string]string{}
	n := 0
	for line := range strings.Lines(string(body)) {
		n++
		line = strings.Trim(line, " \t\r\n")
		if len(line) > maxScriptLine {
			return nil, fmt.Errorf("line %d is longer than %d bytes", n, maxScriptLine)
		}
		rest, ok := strings.CutPrefix(line, "export")
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
			continue
		}
		if err := parseExport(strings.TrimLeft(rest, " \t"), vars); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return vars, nil
}

// parseExport reads what follows the word export: assignments, perhaps names alone, perhaps a comment.
func parseExport(s string, vars map[string]string) error {
	for s != "" && s[0] != '#' {
		if s[0] == ';' {
			if rest := strings.Trim(s, "; \t"); rest != "" && rest[0] != '#' {
				return fmt.Errorf("a second command after the semicolon")
			}
			return nil
		}
		end := 0
		for end < len(s) && isNameByte(s[end], end == 0) {
			end++
		}
		name := s[:end]
		if name == "" {
			// What stands here may be a part of a secret, so it is not quoted.
			return fmt.Errorf("export: something that is not NAME=value")
		}
		s = s[end:]
		switch {
		case s == "" || s[0] == ' ' || s[0] == '\t' || s[0] == ';':
			// "export NAME" exports what was set before, and this parser sets nothing before.
		case s[0] != '=':
			return fmt.Errorf("export %s: no = after the name", cut(name, 60))
		default:
			value, rest, err := parseWord(s[1:])
			if err != nil {
				return fmt.Errorf("export %s: %w", cut(name, 60), err)
			}
			vars[name], s = value, rest
		}
		s = strings.TrimLeft(s, " \t")
	}
	return nil
}

// parseWord reads one shell word of plain, single-quoted and double-quoted parts and returns what follows it.
func parseWord(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); {
		switch c := s[i]; c {
		case ' ', '\t', ';':
			return b.String(), s[i:], nil
		case '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			if end < 0 {
				return "", "", fmt.Errorf("a single quote is not closed")
			}
			b.WriteString(s[i+1 : i+1+end])
			i += end + 2
		case '"':
			n, err := parseDouble(s[i+1:], &b)
			if err != nil {
				return "", "", err
			}
			i += n + 1
		case '\\':
			if i+1 == len(s) {
				return "", "", fmt.Errorf("the value goes on in the next line")
			}
			b.WriteByte(s[i+1])
			i += 2
		case '$', '`':
			return "", "", fmt.Errorf("the value would have to be evaluated (%q), which is never done", c)
		case '&', '|', '<', '>', '(', ')':
			return "", "", fmt.Errorf("%q without quotes", c)
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String(), "", nil
}

// parseDouble writes what stands up to the closing double quote and returns how many bytes it took, the quote included.
func parseDouble(s string, b *strings.Builder) (int, error) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return i + 1, nil
		case '\\':
			if i+1 < len(s) && strings.IndexByte(`"\$`+"`", s[i+1]) >= 0 {
				i++
				c = s[i]
			}
			b.WriteByte(c)
		case '$', '`':
			return 0, fmt.Errorf("the value would have to be evaluated (%q), which is never done", c)
		default:
			b.WriteByte(c)
		}
	}
	return 0, fmt.Errorf("a double quote is not closed: the script may be cut short")
}

func isNameByte(c byte, first bool) bool {
	return c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || !first && c >= '0' && c <= '9'
}

// looksLikeScript tells a web page, JSON and binary data from a script, with a reason that helps.
func looksLikeScript(body []byte) error {
	text := bytes.TrimSpace(body)
	switch {
	case len(text) == 0:
		return fmt.Errorf("the answer is empty")
	case len(body) > maxScript:
		return fmt.Errorf("the answer is larger than %d bytes", maxScript)
	case text[0] == '<':
		return fmt.Errorf("the answer is a web page%s and not an env script: is the URL that of the server, and is it reached through a login page or a proxy?", title(text))
	case text[0] == '{' || text[0] == '[':
		return fmt.Errorf("the answer is JSON and not an env script: a registration URL ends in /scripts/<token>")
	}
	if !utf8.Valid(body) {
		return fmt.Errorf("the answer is not text")
	}
	for i, c := range body {
		// A carriage return belongs to the end of a line, and may be the last byte of an answer.
		loose := c == '\r' && i+1 < len(body) && body[i+1] != '\n' && body[i+1] != '\r'
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f || loose {
			return fmt.Errorf("the answer is not text: byte 0x%02x at %d", c, i)
		}
	}
	return nil
}

// cleanAPIURL checks the base URL of an API and returns it without a trailing slash or "/schemas".
func cleanAPIURL(text string) (string, error) {
	u, err := parseServerURL(text)
	if err != nil {
		return "", err
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q has a query or a fragment", cut(text, 120))
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.Path = strings.TrimRight(strings.TrimSuffix(u.Path, "/schemas"), "/")
	u.RawPath = ""
	return u.String(), nil
}

// parseServerURL parses an absolute http or https URL without a user.
func parseServerURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil: // the error quotes the URL, which may hold a token
		return nil, fmt.Errorf("not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("the scheme is %q and not http or https", cut(u.Scheme, 20))
	case u.Hostname() == "":
		return nil, fmt.Errorf("no host in the URL")
	case u.User != nil:
		return nil, fmt.Errorf("a user name in the URL")
	}
	return u, nil
}

// cleanIP returns an address as it is written, without brackets.
func cleanIP(text string) (string, bool) {
	text = strings.TrimSpace(text)
	text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" {
		return "", false
	}
	return ip.Unmap().String(), true
}
