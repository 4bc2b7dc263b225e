package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

func TestClassify(t *testing.T) {
	engine := fmt.Errorf("start web: no such\n  thing: %w: %w", runtime.ErrNotFound, errors.New("404 from somewhere"))
	for _, c := range []struct {
		err        error
		code, text string
	}{
		{nil, "", ""},
		{errors.New("x"), wire.CodeInternal, "x"},
		{fmt.Errorf("a: %w", fmt.Errorf("b: %w", errors.New("c"))), wire.CodeInternal, "c"},
		{fmt.Errorf("create container: %w", engine), wire.CodeNotFound, "start web: no such thing: not found: 404 from somewhere"},
		{fmt.Errorf("a: %w", fmt.Errorf("b says why: %w", runtime.ErrConflict)), wire.CodeConflict, "b says why: conflict"},
		{fmt.Errorf("volumes: %w", runtime.ErrUnsupported), wire.CodeUnsupported, "volumes: not supported"},
		{fmt.Errorf("list: %w", context.DeadlineExceeded), wire.CodeTimeout, "list: context deadline exceeded"},
		{fmt.Errorf("ping: %w: %w", runtime.ErrUnavailable, context.DeadlineExceeded), wire.CodeUnavailable, "ping: engine unavailable: context deadline exceeded"},
		{runtime.ErrInvalid, wire.CodeInvalid, "invalid"},
		{errors.New(strings.Repeat("é", 5000)), wire.CodeInternal, strings.Repeat("é", 1024) + " ..."},
	} {
		if code, text := handlers.Classify(c.err); code != c.code || text != c.text {
			t.Errorf("Classify(%.100v) is %q %.100q, want %q %.100q", c.err, code, text, c.code, c.text)
		}
	}
}
