package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/utils/secret"
)

func mask(text string) string { return secret.New(text).String() }

func maskURLs(text string) string {
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = maskURL(parts[i])
	}
	return strings.Join(parts, ",")
}

// The setters: each turns a text into a field, or says what it wants.

func text(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if strings.ContainsAny(s, "\x00\r\n") {
			return fmt.Errorf("more than one line")
		}
		*f(c) = strings.TrimSpace(s)
		return nil
	}
}

func hidden(f func(*Config) *secret.String) func(*Config, string) error {
	return func(c *Config, s string) error {
		if strings.ContainsAny(s, "\x00\r\n") {
			return fmt.Errorf("more than one line")
		}
		*f(c) = secret.New(strings.TrimSpace(s))
		return nil
	}
}

// errNotAbsolute is about a path: of a file and of the environment nobody knows which folder it begins at.
var errNotAbsolute = errors.New("want an absolute path")

func dir(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if s != "" && !filepath.IsAbs(s) {
			return errNotAbsolute
		}
		*f(c) = s
		return nil
	}
}

func httpURL(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if s != "" {
			u, err := url.Parse(s)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
				return fmt.Errorf("want a URL like https://host:port/path, without a user")
			}
		}
		*f(c) = s
		return nil
	}
}

func endpoint(f func(*Config) *string, schemes ...string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if strings.HasPrefix(s, "/") {
			s = "unix://" + s
		}
		if s != "" {
			u, err := url.Parse(s)
			if err != nil || !slices.Contains(schemes, u.Scheme) || u.Scheme == "unix" && u.Path == "" || u.Scheme != "unix" && u.Host == "" {
				return fmt.Errorf("want an address that begins with %s://", strings.Join(schemes, ":// or "))
			}
		}
		*f(c) = s
		return nil
	}
}

// endpoints takes a list of what endpoint takes.
func endpoints(f func(*Config) *[]string, schemes ...string) func(*Config, string) error {
	split := list(f)
	return func(c *Config, s string) error {
		if err := split(c, s); err != nil {
			return err
		}
		all := *f(c)
		for i := range all {
			if err := endpoint(func(*Config) *string { return &all[i] }, schemes...)(c, all[i]); err != nil {
				return err
			}
		}
		return nil
	}
}

// listen takes host:port, :port, or "-" for none.
func listen(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if s == "" || s == "-" {
			*f(c) = ""
			return nil
		}
		_, port, err := net.SplitHostPort(s)
		if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil || n > 65535 {
			return fmt.Errorf("want host:port")
		}
		*f(c) = s
		return nil
	}
}

func oneOf(f func(*Config) *string, allowed ...string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if !slices.Contains(allowed, s) {
			return fmt.Errorf("want one of %s", strings.Join(allowed, ", "))
		}
		*f(c) = s
		return nil
	}
}

func boolean(f func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, s string) error {
		switch strings.ToLower(s) {
		case "true", "yes", "on", "1":
			*f(c) = true
		case "false", "no", "off", "0":
			*f(c) = false
		default:
			return fmt.Errorf("want true or false")
		}
		return nil
	}
}

func integer[T int | int64](least, most T, f func(*Config) *T) func(*Config, string) error {
	return func(c *Config, s string) error {
		if s == "" {
			*f(c) = 0
			return nil
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < int64(least) || n > int64(most) {
			return fmt.Errorf("want a whole number from %d to %d", least, most)
		}
		*f(c) = T(n)
		return nil
	}
}

// duration takes "1m30s", or a number in unit.
func duration(unit, least, most time.Duration, f func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, s string) error {
		d, err := time.ParseDuration(s)
		if n, convErr := strconv.ParseInt(s, 10, 32); convErr == nil {
			d, err = time.Duration(n)*unit, nil
		}
		if err != nil || d < least || d > most {
			return fmt.Errorf("want a duration from %s to %s, like 90s, or a number of %s", least, most, unitName(unit))
		}
		*f(c) = d
		return nil
	}
}

func unitName(unit time.Duration) string {
	if unit == time.Millisecond {
		return "milliseconds"
	}
	return "seconds"
}

// list takes words between commas or spaces.
func list(f func(*Config) *[]string) func(*Config, string) error {
	return func(c *Config, s string) error {
		*f(c) = strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
		return nil
	}
}

// listOf takes a list of words that must be among allowed.
func listOf(f func(*Config) *[]string, allowed ...string) func(*Config, string) error {
	split := list(f)
	return func(c *Config, s string) error {
		if err := split(c, s); err != nil {
			return err
		}
		for _, word := range *f(c) {
			if !slices.Contains(allowed, word) {
				return fmt.Errorf("%q: want some of %s", word, strings.Join(allowed, ", "))
			}
		}
		return nil
	}
}

func prefixes(f func(*Config) *[]string) func(*Config, string) error {
	split := list(f)
	return func(c *Config, s string) error {
		if err := split(c, s); err != nil {
			return err
		}
		for _, p := range *f(c) {
			if _, err := netip.ParsePrefix(p); err != nil {
				return fmt.Errorf("want ranges like 10.0.0.0/8")
			}
		}
		return nil
	}
}

// labels reads a query string as the original agent does: keys and values are trimmed, the first value of a key counts,
// and a key alone has an empty value.
func labels(f func(*Config) *map[string]string) func(*Config, string) error {
	return func(c *Config, s string) error {
		m := map[string]string{}
		for pair := range strings.SplitSeq(s, "&") {
			k, v, _ := strings.Cut(pair, "=")
			k, err := url.QueryUnescape(k)
			v, valueErr := url.QueryUnescape(v)
			if err != nil || valueErr != nil {
				return fmt.Errorf("want a=b&c=d")
			}
			k = strings.TrimSpace(k)
			if _, taken := m[k]; k != "" && !taken {
				m[k] = strings.TrimSpace(v)
			}
		}
		*f(c) = m
		return nil
	}
}
