package register

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const goodScript = "#!/bin/sh\n\nexport CATTLE_REGISTRATION_ACCESS_KEY=\"registrationToken\"\nexport CATTLE_REGISTRATION_SECRET_KEY=\"abc:1:dEf==\"\n" +
	"export CATTLE_URL=\"http://server:8080/v1\"\nexport DETECTED_CATTLE_AGENT_IP=\"203.0.113.7\"\n"

func TestScriptForms(t *testing.T) {
	want := script{accessKey: "registrationToken", secretKey: "abc:1:dEf==", url: "http://server:8080/v1", agentIP: "203.0.113.7"}
	for name, text := range map[string]string{
		"rancher":       goodScript,
		"no newline":    strings.TrimSpace(goodScript),
		"crlf":          strings.ReplaceAll(goodScript, "\n", "\r\n"),
		"single quotes": strings.ReplaceAll(goodScript, `"`, `'`),
		"no quotes":     strings.ReplaceAll(goodScript, `"`, ``),
		"mixed quotes":  strings.Replace(goodScript, `"abc:1:dEf=="`, `a"bc":'1:d'E"f="=`, 1),
		"bom":           "\ufeff" + goodScript,
		"indented":      strings.ReplaceAll(goodScript, "export ", "  \texport \t "),
		"comments":      strings.ReplaceAll(goodScript, "\nexport", "   # why\n# export CATTLE_URL=\"http://evil\"\n\nexport"),
		"semicolons":    strings.ReplaceAll(goodScript, "\"\n", "\" ; # end\n"),
		"unknown lines": "set -e\nif [ -f /x ]; then . /x; fi\nX=1\nexport OTHER\nexport\nexported=1\nexport EMPTY=\n" + goodScript + "export CATTLE_HOST_LABELS='a=b&c=d'\nexec foo\n",
		"last wins":     "export CATTLE_URL=http://old/v1\n" + goodScript,
		"one line":      "export CATTLE_REGISTRATION_ACCESS_KEY=registrationToken CATTLE_REGISTRATION_SECRET_KEY='abc:1:dEf==' CATTLE_URL=http://server:8080/v1 DETECTED_CATTLE_AGENT_IP=203.0.113.7",
		"escapes":       strings.Replace(goodScript, `"abc:1:dEf=="`, `abc\:1:"dEf="\=`, 1),
		"schemas":       strings.Replace(goodScript, "8080/v1", "8080/v1/schemas", 1),
		"slash":         strings.Replace(goodScript, "8080/v1", "8080/v1/", 1),
		"agent ip":      strings.Replace(goodScript, `DETECTED_CATTLE_AGENT_IP="203.0.113.7"`, "DETECTED_CATTLE_AGENT_IP=10.0.0.1\nexport CATTLE_AGENT_IP=203.0.113.7", 1),
		"mapped ip":     strings.Replace(goodScript, `"203.0.113.7"`, `"::ffff:203.0.113.7"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readScript([]byte(text), false)
			if err != nil {
				t.Fatal(err)
			}
			if *got != want {
				t.Errorf("got %+v, want %+v", *got, want)
			}
		})
	}
}

func TestScriptValues(t *testing.T) {
	for text, want := range map[string]string{
		`export A="a b"`: "a b", `export A='$HOME "x" \n'`: `$HOME "x" \n`, `export A="\$x \"y\" \\ \z"`: `$x "y" \ \z`,
		`export A=`: "", `export A=""`: "", `export A=a=b==c`: "a=b==c", `export A=a#b`: "a#b", `export A=a #b`: "a", `export A="ü"`: "ü",
	} {
		vars, err := parseEnvScript([]byte(text + "\n"))
		if err != nil || vars["A"] != want {
			t.Errorf("%s: got %q, %v, want %q", text, vars["A"], err, want)
		}
	}
}

func TestBadScripts(t *testing.T) {
	without := func(name string) string {
		var out []string
		for _, line := range strings.Split(goodScript, "\n") {
			if !strings.Contains(line, " "+name+"=") {
				out = append(out, line)
			}
		}
		return strings.Join(out, "\n")
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", "the answer is empty"},
		"blank":            {" \r\n\t\n", "the answer is empty"},
		"html":             {"<!DOCTYPE html><html><head><title>\n Log in\n</title></head>", `a web page "Log in"`},
		"html after space": {"\n\n  <html>", "a web page"},
		"json":             {`{"type":"apiVersion"}`, "JSON"},
		"binary":           {"\x7fELF\x02\x01\x01\x00\x00", "not text"},
		"invalid utf-8":    {goodScript + "\xff\xfe", "not text"},
		"nul":              {goodScript + "\x00", "not text"},
		"text":             {"It works!", "not an env script: it does not set CATTLE_REGISTRATION_ACCESS_KEY, CATTLE_REGISTRATION_SECRET_KEY, CATTLE_URL, DETECTED_CATTLE_AGENT_IP"},
		"no access key":    {without(varAccessKey), "incomplete: it does not set CATTLE_REGISTRATION_ACCESS_KEY"},
		"no secret key":    {without(varSecretKey), "incomplete: it does not set CATTLE_REGISTRATION_SECRET_KEY"},
		"no url":           {without(varURL), "incomplete: it does not set CATTLE_URL"},
		"no ip":            {without(varDetectedIP), "incomplete: it does not set DETECTED_CATTLE_AGENT_IP"},
		"empty value":      {strings.Replace(goodScript, `"http://server:8080/v1"`, `""`, 1), "it does not set CATTLE_URL"},
		"cut in a value":   {goodScript[:strings.Index(goodScript, "203.")+2], "line 6: export DETECTED_CATTLE_AGENT_IP: a double quote is not closed"},
		"single open":      {"export A='x\n", "line 1: export A: a single quote is not closed"},
		"command":          {strings.Replace(goodScript, "abc:1", "$(reboot)", 1), "evaluated"},
		"backticks":        {"export A=`id`\n", "evaluated"},
		"variable":         {"export A=${B}\n", "evaluated"},
		"second command":   {"export A=x; rm -rf /\n", "second command"},
		"pipe":             {"export A=x|sh\n", "without quotes"},
		"and":              {"export A=x && sh\n", "NAME=value"},
		"continued":        {"export A=x\\\n", "next line"},
		"bad name":         {"export 1A=x\n", "NAME=value"},
		"dash in name":     {"export A-B=x\n", "no = after the name"},
		"option":           {"export -p\n", "NAME=value"},
		"url without host": {strings.Replace(goodScript, "http://server:8080/v1", "/v1", 1), "CATTLE_URL: the scheme"},
		"url with user":    {strings.Replace(goodScript, "http://", "http://u:p@", 1), "CATTLE_URL: a user name"},
		"ftp":              {strings.Replace(goodScript, "http://", "ftp://", 1), `CATTLE_URL: the scheme is "ftp"`},
		"url with query":   {strings.Replace(goodScript, "/v1", "/v1?x=1", 1), "CATTLE_URL: "},
		"ip that is none":  {strings.Replace(goodScript, "203.0.113.7", "unknown", 1), `DETECTED_CATTLE_AGENT_IP: "unknown" is not an IP address`},
		"long line":        {"export A=" + strings.Repeat("x", maxScriptLine) + "\n", "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readScript([]byte(c.text), false)
			var se *ScriptError
			if !errors.As(err, &se) {
				t.Fatalf("got %v, want a ScriptError", err)
			}
			if text := err.Error(); !strings.Contains(text, c.want) || strings.ContainsAny(text, "\r\n") {
				t.Errorf("got %q, want it in one line with %q", text, c.want)
			}
			if strings.Contains(err.Error(), "dEf") {
				t.Errorf("the secret is quoted: %s", err)
			}
		})
	}
}

func TestKnownAddressNeedsNoDetection(t *testing.T) {
	for _, text := range []string{strings.Replace(goodScript, "203.0.113.7", "unknown", 1), strings.Replace(goodScript, "DETECTED_CATTLE_AGENT_IP", "X", 1)} {
		if s, err := readScript([]byte(text), true); err != nil || s.agentIP != "" {
			t.Errorf("got %+v, %v", s, err)
		}
	}
}

func FuzzEnvScript(f *testing.F) {
	for _, s := range []string{
		goodScript, "export A='b'\"c\"\\d#e\n", "export A=\"\\", "export A=$x", "<html>", "{", "export A=1 B=2 C;#", strings.ReplaceAll(goodScript, "\n", "\r\n"),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		vars, err := parseEnvScript(body)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n\x00") {
				t.Errorf("not one line: %q", err)
			}
			return
		}
		// What was understood survives being written as a shell would be told it.
		var b strings.Builder
		b.WriteString("#!/bin/sh\n")
		for name, value := range vars {
			if strings.ContainsAny(value, "\r\n") {
				t.Errorf("%s holds a line break: %q", name, value)
			}
			fmt.Fprintf(&b, "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
		}
		again, err := parseEnvScript([]byte(b.String()))
		if err != nil && !strings.Contains(err.Error(), "longer than") || err == nil && len(again) != len(vars) {
			t.Fatalf("again: %d of %d, %v", len(again), len(vars), err)
		}
		for name, value := range vars {
			if err == nil && again[name] != value {
				t.Errorf("%s: %q became %q", name, value, again[name])
			}
		}
		_, _ = readScript(body, false)
	})
}
