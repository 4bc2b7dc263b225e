package logs

import (
	"context"
	"strings"
)

// echo writes its arguments. Its main use is echo TEXT >> FILE, which [Service.Run] carries out itself.
func echo(_ context.Context, e *env, args []Word) (int, error) {
	text, err := echoText(args)
	if err != nil {
		return 2, err
	}
	_, err = e.out.WriteString(text)
	return 0, err
}

func echoText(args []Word) (string, error) {
	newline := "\n"
	if len(args) > 0 && args[0].Text == "-n" {
		newline, args = "", args[1:]
	}
	if len(args) > 0 && (args[0].Text == "-e" || args[0].Text == "-E") {
		return "", &Refusal{Reason: "echo: option " + args[0].Text + " is not allowed", Column: args[0].Column}
	}
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = a.Text
	}
	return strings.Join(words, " ") + newline, nil
}
