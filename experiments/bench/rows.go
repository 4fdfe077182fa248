package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"sagbench/experiments/store"
)

// distancesMark is the line above the table of docs/devices.md whose rows a measurement
// replaces.
const distancesMark = "<!-- rows of a device and precision: make gpu-check -->"

// distanceColumns are those of that table. A row's device, hardware and all, and its
// precision say which measurement it is of.
var distanceColumns = []string{"family", "device", "precision", "one call: largest, mean", "50 steps: largest, mean", "FID", "change of FID, 95 %", "measured"}

const deviceColumn, precisionColumn = 1, 2

// tableRow is a line of a Markdown table.
func tableRow(cells []string) string {
	escaped := make([]string, len(cells))
	for i, c := range cells {
		escaped[i] = strings.ReplaceAll(c, "|", `\|`)
	}
	return "| " + strings.Join(escaped, " | ") + " |\n"
}

// measurement is what the row is of: its device and precision.
func measurement(row string) string {
	cells := strings.Split(row, " | ")
	if len(cells) != len(distanceColumns) {
		return "" // of nothing that is measured here
	}
	return strings.Join(cells[deviceColumn:precisionColumn+1], " | ")
}

// replaceRows puts rows into the table of distances in a Markdown file, in place of all
// that are of the same device and precision, or at its end. It is an error where the
// file has no such table.
func replaceRows(document string, rows [][]string) (string, error) {
	before, after, found := strings.Cut(document, distancesMark+"\n\n")
	columns := tableRow(distanceColumns)
	if !found || !strings.HasPrefix(after, columns+"|") {
		return "", fmt.Errorf("expected the line %q, a blank line and a table of the columns %s; take them from docs/devices.md", distancesMark, strings.TrimSpace(columns))
	}
	table := slices.Collect(strings.Lines(after))
	end := slices.IndexFunc(table, func(line string) bool { return !strings.HasPrefix(line, "|") })
	if end < 0 {
		end = len(table)
	}
	table, rest := table[:end], table[end:]
	var fresh []string
	replaced := map[string]bool{}
	for _, r := range rows {
		row := tableRow(r)
		fresh = append(fresh, row)
		replaced[measurement(row)] = true
	}
	old := func(row string) bool { return replaced[measurement(row)] }
	at := slices.IndexFunc(table, old)
	kept := slices.DeleteFunc(slices.Clone(table), old)
	if at < 0 {
		at = len(kept)
		if last := kept[at-1]; !strings.HasSuffix(last, "\n") {
			kept[at-1] = last + "\n"
		}
	}
	return before + distancesMark + "\n\n" + strings.Join(slices.Insert(kept, at, fresh...), "") + strings.Join(rest, ""), nil
}

// writeRows is replaceRows for a file.
func writeRows(path string, rows [][]string) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	written, err := replaceRows(string(document), rows)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return store.WriteOutput(path, []byte(written))
}
