package cli

import (
	"fmt"

	"github.com/spf13/pflag"
)

// addConfigFlags gives f the flags of the settings with the given names, as "url", "state-dir". Their values are checked
// as they are parsed. An unknown name panics: names are written in this program.
func addConfigFlags(f *pflag.FlagSet, names ...string) {
	for _, name := range names {
		k := flagKey(name)
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
	f.Visit(func(flag *pflag.Flag) {
		for _, k := range configKeys() {
			if k.flag == flag.Name {
				given[flag.Name] = flag.Value.String()
			}
		}
	})
	return given
}

func flagKey(name string) configKey {
	for _, k := range configKeys() {
		if k.flag == name && name != "" {
			return k
		}
	}
	panic("no setting has the flag --" + name)
}

// configFlag is a flag that keeps its text.
type configFlag struct {
	key  configKey
	text string
}

func (f *configFlag) String() string { return f.text }

func (f *configFlag) Set(text string) error {
	if err := f.key.set(new(Config), text); err != nil {
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
