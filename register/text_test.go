package register

import "testing"

func TestMaskURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://h:8443/v1/scripts/SECRET":       "https://h:8443/v1/scripts/...",
		"https://h/v1/scripts/SECRET/":           "https://h/v1/scripts/...",
		"https://u:SECRET@h/v1/SECRET?k=SECRET#": "https://h/v1/...",
		"https://h/SECRET":                       "https://h/...",
		"https://h/":                             "https://h/...",
		"https://h":                              "https://h/...",
		"SECRET":                                 "[not a URL]",
		"https://h:SECRET/":                      "[not a URL]",
	} {
		if got := MaskURL(url); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}
