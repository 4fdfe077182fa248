package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sagbench/configs"
	"sagbench/models"
	"sagbench/sampling"
)

// Labels are sampling.Labels as an experiment says them: random, balanced, a list of
// classes, or a mapping of classes to numbers of images.
type Labels struct {
	sampling.Labels `yaml:"-"`
	at              configs.Block // zero where the experiment does not say
}

// labelWords are the labels that have a name.
var labelWords = []string{"random", "balanced"}

const labelsExpected = "expected random, balanced, a list of classes such as [207, 360], or a mapping of classes to numbers of images such as {207: 500, 360: 500}"

// The largest class and number of images that labels may name.
const (
	maxClass       = 10_000_000
	maxClassImages = 10_000_000
)

// UnmarshalBlock implements configs.Unmarshaler.
func (l *Labels) UnmarshalBlock(b configs.Block) error {
	*l = Labels{at: b}
	switch word, isText := b.Text(); {
	case b.IsMapping():
		return l.readCounts(b)
	case b.IsList():
		return l.readList(b)
	case isText && slices.Contains(labelWords, word):
		l.Balanced = word == "balanced"
		return nil
	case isText:
		if _, err := strconv.Atoi(word); err == nil {
			return fmt.Errorf("is %s, %s; write [%s] for images of this class alone", word, labelsExpected, word)
		}
		return fmt.Errorf("is %q, %s", word, labelsExpected)
	}
	return fmt.Errorf("is %s, %s", b, labelsExpected)
}

func (l *Labels) readList(b configs.Block) error {
	if err := b.Decode(&l.IDs); err != nil {
		return err
	}
	if len(l.IDs) == 0 {
		return fmt.Errorf("is an empty list, %s", labelsExpected)
	}
	for i, id := range l.IDs {
		if id < 0 || id > maxClass {
			return b.Items()[i].Errorf("is class %d, expected 0 to %d", id, maxClass)
		}
	}
	return nil
}

func (l *Labels) readCounts(b configs.Block) error {
	var faults []error
	counts := map[string]int{}
	if err := b.Decode(&counts); err != nil {
		return err
	}
	for _, key := range b.Keys() {
		at, _ := b.At(key)
		class, err := strconv.ParseInt(key, 10, 64)
		switch n := counts[key]; {
		case err != nil || class < 0 || class > maxClass || strconv.FormatInt(class, 10) != key:
			faults = append(faults, at.Errorf("%q is no class, expected its number, 0 to %d: {207: 500}", key, maxClass))
		case n < 1 || n > maxClassImages:
			faults = append(faults, at.Errorf("is %d images of class %d, expected 1 to %d", n, class, maxClassImages))
		default:
			l.Counts = append(l.Counts, sampling.ClassCount{Class: class, Images: n})
		}
	}
	if len(b.Keys()) == 0 {
		faults = append(faults, fmt.Errorf("is an empty mapping, %s", labelsExpected))
	}
	slices.SortFunc(l.Counts, func(a, b sampling.ClassCount) int { return int(a.Class - b.Class) })
	return configs.Join(faults...)
}

// MarshalJSON is what an experiment says: "balanced", [1,2], {"1":5}.
func (l Labels) MarshalJSON() ([]byte, error) {
	switch {
	case l.Balanced:
		return json.Marshal("balanced")
	case len(l.IDs) > 0:
		return json.Marshal(l.IDs)
	case len(l.Counts) > 0:
		counts := map[string]int{}
		for _, c := range l.Counts {
			counts[strconv.FormatInt(c.Class, 10)] = c.Images
		}
		return json.Marshal(counts)
	}
	return json.Marshal("random")
}

// checkLabels checks the labels against the number of images, and against what the
// family's flags tell.
func (r *Row) checkLabels() error {
	if len(r.Labels.Counts) > 0 && r.Labels.Total() != r.Samples {
		return r.Labels.at.Errorf("asks for %d images of %d classes together, and samples is %d; make the two the same", r.Labels.Total(), len(r.Labels.Counts), r.Samples)
	}
	if r.Labels.Random() || len(r.Attachments) > 0 { // whose networks may know classes
		return nil
	}
	if f, ok := r.Model.Flags.(models.Conditional); ok && !f.Conditioning().Labels {
		return r.noClasses()
	}
	return nil
}

func (r *Row) noClasses() error {
	return r.Labels.at.Errorf("family %s, with the flags of the row, is not conditioned on classes; remove it", r.Model.Family)
}

// CheckLabels checks the labels against the number of classes of the row's networks, 0
// for none.
func (r *Row) CheckLabels(classes int) error {
	if r.Labels.Random() {
		return nil
	}
	if classes == 0 {
		return r.noClasses()
	}
	if err := r.Labels.Check(classes); err != nil {
		return r.Labels.at.Errorf("%w", err)
	}
	return nil
}

// DescribeLabels tells how the row's images get their classes, and of counts of images
// a class what they are; classes are as many as there are counts, or fewer than the
// network knows.
func (r *Row) DescribeLabels(counts []int) string {
	how := "random, with replacement"
	switch l := r.Labels; {
	case l.Balanced:
		how = "balanced, image i has class i mod K of the network's K"
	case len(l.IDs) > 0:
		how = fmt.Sprintf("image i has the class of place i mod %d of a list", len(l.IDs))
	case len(l.Counts) > 0:
		how = "so many images of each class"
	}
	text := fmt.Sprintf("labels: %s: %s", how, sampling.DescribeCounts(counts))
	none := 0
	for _, n := range counts {
		if n == 0 {
			none++
		}
	}
	if none > 0 && r.Labels.Balanced {
		text += fmt.Sprintf(", none of the other %d", none)
	}
	return text
}

// labels are lines about the classes of the rows' images, each with the rows that it is
// about where these are not all of the experiment.
func (f *Forecast) labels() string {
	return f.each(func(p RowForecast) string { return p.Labels })
}

// prompts are lines about the prompts that were drawn from files.
func (f *Forecast) prompts() string {
	return f.each(func(p RowForecast) string { return p.Row.DescribeDraw() })
}

// each are the different lines that rows have, each with the numbers of these rows where
// they are not all of the experiment.
func (f *Forecast) each(of func(RowForecast) string) string {
	var lines []string
	rows := map[string][]string{}
	for _, p := range f.Rows {
		line := of(p)
		if line == "" {
			continue
		}
		if rows[line] == nil {
			lines = append(lines, line)
		}
		rows[line] = append(rows[line], fmt.Sprint(p.Row.Index+1))
	}
	var out strings.Builder
	for _, line := range lines {
		out.WriteString(line)
		if n := rows[line]; len(n) < len(f.Rows) {
			fmt.Fprintf(&out, " (row %s)", strings.Join(n, ", "))
		}
		out.WriteString("\n")
	}
	return out.String()
}
