package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sagbench/experiments/store"
	"sagbench/internal/tiny"
)

// searched is the tiny experiment as a search over three scales in three rounds; the
// largest scale spoils the images.
func searched(t *testing.T, replacements ...string) string {
	t.Helper()
	return tiny.Experiment(t, t.TempDir(), append(replacements, "samples: 8", "samples: 32\nbootstrap: 40\nsearch: {metric: fid, budget: 96, confidence: 0.999, first: 8, eta: 2}",
		"[fid, sfid, is, precision, recall]", "[fid, recall]", "[0, 0.5]", "[0, 0.01, 30]")...)
}

// rounds are the rounds of a search that are decided.
func rounds(t *testing.T, results string) (all []*store.SearchRound) {
	t.Helper()
	for {
		r, err := store.ReadSearchRound(filepath.Join(results, "tiny"), len(all)+1, func(text string) { t.Error(text) })
		if err != nil {
			t.Fatal(err)
		}
		if r == nil {
			return all
		}
		all = append(all, r)
	}
}

// A search draws what its rounds need and no more, says what it found, and is the same
// however often it is killed, in each of its rounds.
func TestSearchKilled(t *testing.T) {
	file := searched(t)
	whole := t.TempDir()
	p := succeed(t, "run", file, "--results", whole)
	want, found := tiny.Tree(t, whole), rounds(t, whole)
	if len(found) < 3 || found[0].Images != 8 || found[1].Images != 16 || found[len(found)-1].Next != 0 {
		t.Fatalf("%d rounds: %+v", len(found), found)
	}
	images := map[int]int{}
	dropped := 0
	for _, r := range found {
		for _, row := range r.Rows {
			images[row.Row] = r.Images
			if row.Dropped {
				dropped++
			}
		}
	}
	sum := 0
	for row, n := range images {
		sum += n
		if there, _ := filepath.Glob(filepath.Join(whole, "tiny", "*", "samples", fmt.Sprintf("samples_%dx*.npz", n))); len(there) == 0 {
			t.Errorf("row %d: no %d images", row, n)
		}
	}
	last := found[len(found)-1]
	if sum != last.Drawn || sum > 96 || dropped == 0 || dropped > 2 {
		t.Errorf("%d images, %d in the last round, %d rows dropped", sum, last.Drawn, dropped)
	}
	for _, line := range []string{"search by FID: ", "dropped: the round, and the difference"} {
		if !strings.Contains(p.stdout.String(), line) {
			t.Errorf("no %q in\n%s", line, &p.stdout)
		}
	}

	results := t.TempDir()
	kills := 0
	for k := range found {
		for _, late := range []bool{false, true} { // with the first image of the round, and when a row is scored
			p := program("run", file, "--results", results)
			p.start(t)
			deadline := time.Now().Add(2 * time.Minute)
			for ready := false; !ready && !hasEnded(p); time.Sleep(time.Millisecond) {
				scores, _ := filepath.Glob(filepath.Join(results, "tiny", "*", "samples", fmt.Sprintf("samples_%dx*.npz", found[k].Images)))
				_, err := os.Stat(filepath.Join(results, "tiny", "search", fmt.Sprintf("round-%d.json", k)))
				ready = (k == 0 || err == nil) && (len(shards(results)) > 0 && !late || len(scores) > 0)
				if time.Now().After(deadline) {
					p.Process.Kill()
					t.Fatalf("round %d did not begin\n%s", k+1, &p.stderr)
				}
			}
			p.Process.Kill()
			if p.status(t) == -1 {
				kills++
			}
		}
	}
	succeed(t, "run", file, "--results", results)
	tiny.Same(t, tiny.Tree(t, results), want)
	if kills < len(found) {
		t.Errorf("%d kills in %d rounds, too few to say anything", kills, len(found))
	}
}

// Three processes at once leave what one does, though they come to the end of a round at
// different times.
func TestSearchOfManyProcesses(t *testing.T) {
	file := searched(t)
	want := undisturbed(t, "run", file)
	results := t.TempDir()
	var all []*process
	for i := range 3 {
		p := program("run", file, "--results", results, "--heartbeat", "100ms", "--stale", "1s", "--part", fmt.Sprintf("%d/3", i))
		p.start(t)
		all = append(all, p)
	}
	for i, p := range all {
		if status := p.status(t); status != 0 {
			t.Errorf("part %d: exit status %d\n%s", i, status, &p.stderr)
		}
	}
	tiny.Same(t, tiny.Tree(t, results), want)
}

// Another budget, range or metric goes on with the images that are there, says what is
// other, and comes to what it would have come to without them.
func TestSearchEdited(t *testing.T) {
	file := searched(t)
	results := t.TempDir()
	succeed(t, "run", file, "--results", results, "search.budget=40", "sweep.guidance.sag.scale=[0, 30]")
	status := succeed(t, "status", file, "--results", results, "search.budget=40", "sweep.guidance.sag.scale=[0, 30]", "--json").stdout.Bytes()
	var s struct {
		Search struct {
			Over          bool
			Drawn, Budget int
		}
	}
	if err := json.Unmarshal(status, &s); err != nil || !s.Search.Over || s.Search.Budget != 40 || s.Search.Drawn > 40 || s.Search.Drawn < 16 {
		t.Errorf("%v: %s", err, status)
	}
	there := imagesIn(t, results)

	p := succeed(t, "run", file, "--results", results)
	for _, line := range []string{"it is decided anew, with the images that are there", "budget: 40 there, 96 here", "sweep: 2 there, 3 here", "rows that are new: s=0.01"} {
		if !strings.Contains(p.stderr.String(), line) {
			t.Errorf("no %q in\n%s", line, &p.stderr)
		}
	}
	tiny.Same(t, tiny.Tree(t, results), undisturbed(t, "run", file))
	drawn := 0
	for _, m := range regexp.MustCompile(`(?m)^to do: (\d+) images`).FindAllStringSubmatch(p.stderr.String(), -1) {
		drawn += must(strconv.Atoi(m[1]))
	}
	if all := imagesIn(t, results); there < 16 || drawn != all-there {
		t.Errorf("%d images were drawn; there were %d, and are %d", drawn, there, all)
	}

	p = succeed(t, "run", file, "--results", results, "search.metric=recall")
	if line := "metrics.0: fid there, recall here"; !strings.Contains(p.stderr.String(), line) {
		t.Errorf("no %q in\n%s", line, &p.stderr)
	}
	if message := fail(t, "sample", file, "--results", t.TempDir()); !strings.Contains(message, "its search drops rows by their scores, and nothing is to be scored") {
		t.Error(message)
	}
	if message := fail(t, "run", file, "--results", t.TempDir(), "--rows", "1,2"); !strings.Contains(message, "--rows leaves rows out, and its search decides which rows to draw") {
		t.Error(message)
	}
}

// imagesIn counts the images of all rows below a folder of results, which are finished.
func imagesIn(t *testing.T, results string) (n int) {
	t.Helper()
	for _, path := range must(filepath.Glob(filepath.Join(results, "*", "*", "samples", "*.npz"))) {
		var own int
		if _, err := fmt.Sscanf(filepath.Base(path), "samples_%d", &own); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		n += own
	}
	return n
}
