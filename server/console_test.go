package server_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/droverhq/drover/server"
)

// browser opens a page in a real browser. The second result returns what the browser complained about.
func browser(t *testing.T, url string) (context.Context, func() []string) {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.NoSandbox, chromedp.WSURLReadTimeout(patience))
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(endAlloc)
	ctx, end := chromedp.NewContext(alloc)
	t.Cleanup(end)
	var mu sync.Mutex
	var complaints []string
	err := chromedp.Listen(ctx, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			complaints = append(complaints, ev.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			complaints = append(complaints, ev.Entry.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(complaints)
	}
}

func page(t *testing.T, ctx context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, a := range actions {
		if _, err := chromedp.Run(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
}

func pageText(t *testing.T, ctx context.Context, selector string) string {
	t.Helper()
	text, err := chromedp.Run(ctx, chromedp.Text(selector))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestConsoleInABrowser(t *testing.T) {
	s := start(t, server.Config{})
	_, hostID := withHost(t, s)
	ctx, complaints := browser(t, s.url)
	page(t, ctx, chromedp.WaitVisible("#login"), chromedp.SendKeys("#key", "ak_NOBODY:guess"), chromedp.Click("#login button"),
		chromedp.WaitVisible("#refused"))
	if got := pageText(t, ctx, "#refused"); !strings.Contains(got, "wrong") {
		t.Errorf("a wrong key is answered with %q", got)
	}
	page(t, ctx, chromedp.SendKeys("#key", s.key), chromedp.Click("#login button"), chromedp.WaitVisible("#hosts li"))
	if got := pageText(t, ctx, "#hosts"); !strings.Contains(got, "node-host-uuid-1") || !strings.Contains(got, "online") || !strings.Contains(got, "zone=a") {
		t.Errorf("hosts: %q", got)
	}
	// What changes appears without a reload, and what looks like markup stays text.
	s.must("PUT", "/v2-beta/hosts/"+hostID, s.key, map[string]any{"name": `<img src=x onerror="document.title='owned'">`})
	s.must("POST", "/v2-beta/containers", s.key, map[string]any{"name": "web", "imageUuid": "docker:nginx", "ports": []string{"8080:80"}})
	eventually(t, "the changes appear", func() bool {
		return strings.Contains(pageText(t, ctx, "#hosts"), "<img src=x") && strings.Contains(pageText(t, ctx, "#containers"), "running")
	})
	page(t, ctx, chromedp.SendKeys("#find", "nothing-has-this-name"), chromedp.WaitVisible("#no-containers"))
	page(t, ctx, chromedp.Click("#add"), chromedp.WaitVisible("#line"))
	eventually(t, "the one-liner appears", func() bool { return strings.HasPrefix(pageText(t, ctx, "#line"), "docker run ") })
	title, err := chromedp.Run(ctx, chromedp.Title())
	if err != nil || title != "Drover" {
		t.Errorf("title %q %v", title, err)
	}
	page(t, ctx, chromedp.Click("#join form button.quiet"), chromedp.Click("#out"), chromedp.WaitVisible("#login"), chromedp.Sleep(10*time.Millisecond))
	for _, c := range complaints() {
		if !strings.Contains(c, "401") { // of the wrong key
			t.Errorf("the browser complains: %s", c)
		}
	}
}
