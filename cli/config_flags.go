package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"
)

// addConfigFlags gives f the flags of the settings with the given names, as "url", "state-dir". Their values are checked
// as they are parsed. An unknown name panics: names are written in this program.
func addConfigFlags(f *pflag.FlagSet, names ...string) {
	byFlag := keysByFlag()
	for _, name := range names {
		k, ok := byFlag[name]
		if !ok {
			panic("no setting has the flag --" + name)
		}
		usage := k.usage
		if len(k.env) > 0 {
			usage += fmt.Sprintf(" (%s)", k.env[0])
		}
		flag := f.VarPF(&configFlag{key: k}, name, "", usage)
		flag.DefValue = k.def
		if k.kind == kindBool {
			flag.NoOptDefVal = "true"
		}
	}
}

// changedConfigFlags returns what was given on the command line, for [LoadConfig].
func changedConfigFlags(f *pflag.FlagSet) map[string]string {
	given := map[string]string{}
	byFlag := keysByFlag()
	f.Visit(func(flag *pflag.Flag) {
		if _, ok := byFlag[flag.Name]; ok {
			given[flag.Name] = flag.Value.String()
		}
	})
	return given
}

// keysByFlag makes the table of settings by their flags; a start of the program makes it a few times and no more.
func keysByFlag() map[string]configKey {
	keys := configKeys()
	m := make(map[string]configKey, len(keys))
	for _, k := range keys {
		if k.flag != "" {
			m[k.flag] = k
		}
	}
	return m
}

// configFlag is a flag that keeps its text.
type configFlag struct {
	key  configKey
	text string
}

func (f *configFlag) String() string { return f.text }

func (f *configFlag) Set(text string) error {
	err := f.key.set(new(Config), text)
	if errors.Is(err, errNotAbsolute) {
		// Who types it means the current folder.
		if text, err = filepath.Abs(text); err == nil {
			err = f.key.set(new(Config), text)
		}
	}
	if err != nil {
		return err
	}
	f.text = text
	return nil
}

// Type is the name of the value in the help text.
func (f *configFlag) Type() string {
	switch f.key.kind {
	case kindBool:
		return "bool"
	case kindList:
		return "list"
	}
	return "string"
}
