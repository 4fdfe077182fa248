//go:build browser

package report

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// browser is a tab of a headless Chromium; faults collects what it complains of and
// requests every address that it asks for.
func browser(t *testing.T) (ctx context.Context, faults, requests *[]string) {
	t.Helper()
	faults, requests = &[]string{}, &[]string{}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.NoSandbox, chromedp.WSURLReadTimeout(2*time.Minute))
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			*faults = append(*faults, e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			*faults = append(*faults, string(e.Type)+" on the console")
		case *log.EventEntryAdded:
			*faults = append(*faults, e.Entry.Text)
		case *network.EventRequestWillBeSent:
			*requests = append(*requests, e.Request.URL)
		}
	})
	return ctx, faults, requests
}

// The page of a real browser: nothing leaves the file, nothing is complained of, the
// table sorts, the keyboard reaches everything, every image and picture has words,
// and both colour schemes can be read.
func TestPageInBrowser(t *testing.T) {
	results := pageResults(t, true)
	paths, err := Page(t.Context(), []string{results}, PageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, faults, requests := browser(t)
	address := "file://" + paths[0]
	var (
		first, last          []string
		images, described    int
		buttons, reached     int
		opened, closed       bool
		over, cut            string
		wide                 bool
		pictures, named      int
		light, dark, printed []byte
	)
	fids := `[...document.querySelectorAll("#scores tbody tr")].map(r => r.children[2].firstChild.textContent.trim())`
	actions := []chromedp.Action{
		network.Enable(), log.Enable(), chromedp.EmulateViewport(1280, 900), chromedp.Navigate(address), chromedp.WaitReady("#scores"),
		// a press sorts by FID, a second one the other way round
		chromedp.Click("#scores th:nth-child(3) button"), chromedp.Evaluate(fids, &first),
		chromedp.Click("#scores th:nth-child(3) button"), chromedp.Evaluate(fids, &last),
		chromedp.Evaluate(`document.querySelectorAll("img").length - 2`, &images),
		chromedp.Evaluate(`[...document.querySelectorAll(".strips img")].filter(i => i.alt && i.naturalWidth > 0).length`, &described),
		chromedp.Evaluate(`document.querySelectorAll("main svg").length`, &pictures),
		chromedp.Evaluate(`[...document.querySelectorAll("main svg")].filter(s => s.getAttribute("aria-labelledby").split(" ").every(id => document.getElementById(id).textContent)).length`, &named),
		// what can be pressed, and what Tab reaches
		chromedp.Evaluate(`document.querySelectorAll("main button, main a, main summary, main [tabindex='0']").length - document.querySelectorAll("dialog button").length - document.querySelectorAll("details:not([open]) pre").length`, &buttons),
		chromedp.Evaluate(`document.activeElement.blur(); window.seen = new Set(); document.addEventListener("focusin", e => window.seen.add(e.target)); window.scrollTo(0, 0)`, nil),
	}
	if err := chromedp.Run(ctx, actions...); err != nil {
		t.Fatal(err)
	}
	for range 2*buttons + 5 {
		if err := chromedp.Run(ctx, chromedp.KeyEvent(kb.Tab)); err != nil {
			t.Fatal(err)
		}
	}
	err = chromedp.Run(ctx,
		chromedp.Evaluate(`[...window.seen].filter(e => document.querySelector("main").contains(e)).length`, &reached),
		// the viewer, by keyboard alone
		chromedp.Focus(".strips tr:nth-child(2) td:nth-child(4) button"), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("#viewer"),
		chromedp.Evaluate(`document.getElementById("viewer").open`, &opened),
		chromedp.Evaluate(`document.getElementById("over").alt + "|" + document.getElementById("under").alt`, &over),
		chromedp.Focus("#slider"), chromedp.KeyEvent(kb.Home), chromedp.KeyEvent(kb.ArrowRight),
		chromedp.Evaluate(`document.getElementById("viewer").style.getPropertyValue("--cut")`, &cut),
		chromedp.KeyEvent(kb.Escape),
		chromedp.Evaluate(`!document.getElementById("viewer").open`, &closed),
		// both schemes and both widths
		chromedp.FullScreenshot(&light, 90),
		chromedp.ActionFunc(func(ctx context.Context) error {
			return emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}).Do(ctx)
		}),
		chromedp.EmulateViewport(390, 800),
		chromedp.Evaluate(`document.documentElement.scrollWidth > 390`, &wide),
		chromedp.FullScreenshot(&dark, 90),
		chromedp.ActionFunc(func(ctx context.Context) (err error) {
			printed, _, err = page.PrintToPDF().WithPreferCSSPageSize(true).Do(ctx)
			return err
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	if folder := os.Getenv("SAGBENCH_SCREENSHOTS"); folder != "" {
		for name, data := range map[string][]byte{"light-1280.jpg": light, "dark-390.jpg": dark, "print.pdf": printed} {
			if err := os.WriteFile(filepath.Join(folder, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	var contrast []string
	if err := chromedp.Run(ctx, chromedp.Evaluate(contrastScript, &contrast)); err != nil {
		t.Fatal(err)
	}
	if len(contrast) > 0 {
		t.Errorf("dark: contrast below 4.5: %v", contrast)
	}
	if len(*faults) > 0 {
		t.Errorf("the browser complains: %q", *faults)
	}
	for _, r := range *requests {
		if r != address && !strings.HasPrefix(r, "data:") {
			t.Errorf("the page asks for %s", r)
		}
	}
	if !slices.Equal(first, []string{"5.00", "5.25", "5.50", "5.75", "6.00", "6.25"}) {
		t.Errorf("sorted by FID: %v", first)
	}
	if slices.Reverse(last); !slices.Equal(first, last) {
		t.Errorf("sorted the other way round: %v", last)
	}
	if images != 48 || described != images {
		t.Errorf("%d images, %d that are drawn and have words", images, described)
	}
	if pictures == 0 || named != pictures {
		t.Errorf("%d pictures, %d with words", pictures, named)
	}
	if reached < buttons {
		t.Errorf("Tab reaches %d of %d", reached, buttons)
	}
	if !opened || !closed {
		t.Errorf("the viewer opened: %v, closed: %v", opened, closed)
	}
	if over != "image 2, ADM s=0|image 2, ADM s=0.5" {
		t.Errorf("the viewer compares %s", over)
	}
	if cut != "1%" {
		t.Errorf("the slider stands at %q", cut)
	}
	// A4 in points, whatever the paper of the printer
	if !bytes.HasPrefix(printed, []byte("%PDF")) || !regexp.MustCompile(`/MediaBox \[0 0 59[45][.\d]* 84[12][.\d]*\]`).Match(printed) {
		t.Errorf("the print is not on A4: %d bytes", len(printed))
	}
	if wide {
		t.Error("the page is wider than a telephone")
	}
}

// contrastScript lists the texts whose contrast with the page is below that of WCAG AA.
const contrastScript = `(() => {
  const rgb = c => c.match(/[\d.]+/g).slice(0, 3).map(Number);
  const light = c => { const [r, g, b] = rgb(c).map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = light(getComputedStyle(document.documentElement).backgroundColor), bad = new Set();
  for (const e of document.querySelectorAll("h1, h2, p, li, td, th, a, .mark, .change, .margin, svg text")) {
    const style = getComputedStyle(e), colour = e instanceof SVGElement ? style.fill : style.color, l = light(colour);
    if ((Math.max(l, ground) + .05) / (Math.min(l, ground) + .05) < 4.5) bad.add(e.tagName + "." + e.getAttribute("class") + " " + colour);
  }
  return [...bad];
})()`
