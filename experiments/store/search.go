package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SearchFolder keeps, in the folder of an experiment that searches, what each round
// has decided: round-1.json, round-2.json, … All workers write the same bytes.
const SearchFolder = "search"

// SearchFormat is the version of the format of these files.
const SearchFormat = 1

// A SearchRound is what a round of a search found and decided.
type SearchRound struct {
	Format int         `json:"format"` // SearchFormat
	Search SearchRule  `json:"search"` // the rule that it was decided by
	Round  int         `json:"round"`  // from 1
	Images int         `json:"images"` // of each of its rows
	Drawn  int         `json:"drawn"`  // images of all rows so far
	Next   int         `json:"next"`   // images of each row that is left in the next round; 0: the search is over
	Rows   []SearchRow `json:"rows"`   // those that took part, in the order of the table

	Checksum string `json:"checksum"` // sha256 of this file with zeros in place of these digits
}

// A SearchRule is what the rounds of a search follow from.
type SearchRule struct {
	Metrics    []string `json:"metrics"`    // one or two
	Budget     int      `json:"budget"`     // images of all rows together
	Confidence float64  `json:"confidence"` // that the best row is not dropped
	First      int      `json:"first"`      // images of each row in round 1
	Eta        int      `json:"eta"`        // what each round multiplies them by
	Samples    int      `json:"samples"`    // images of a row at most
	Rows       int      `json:"sweep"`      // rows of the sweep
	Level      float64  `json:"level"`      // probability of error, to one side, of each comparison
}

// A SearchRow is a row in a round.
type SearchRow struct {
	Row         int                `json:"row"`               // place in the experiment's table, from 0
	Title       string             `json:"title"`             // its name for people
	Run         string             `json:"run"`               // the run id
	Evaluation  string             `json:"evaluation"`        // the evaluation id of its scores
	Against     string             `json:"against,omitempty"` // title of the row that it was compared with; "" for the best
	Differences []SearchDifference `json:"differences,omitempty"`
	Dropped     bool               `json:"dropped"`
}

// A SearchDifference is a row's score and its difference to another row's, of the same
// number of images.
type SearchDifference struct {
	Metric string  `json:"metric"`
	Value  float64 `json:"score"` // the row's own
	Change float64 `json:"difference"`
	Low    float64 `json:"low"` // ends of the interval, corrected for all comparisons of the search
	High   float64 `json:"high"`
}

// A Searched is what a search decided about a row: what its metrics.json keeps.
type Searched struct {
	Round       int                `json:"round"`             // the last one that the row took part in, from 1
	Rounds      int                `json:"rounds"`            // of the whole search
	Rule        SearchRule         `json:"rule"`              // of the search
	Drawn       int                `json:"drawn"`             // images of all rows in the whole search
	Against     string             `json:"against,omitempty"` // title of the row that it was compared with in that round; "" for the best
	Differences []SearchDifference `json:"differences,omitempty"`
	Dropped     bool               `json:"dropped"` // in that round; otherwise it is one of those that cannot be told apart at the end
}

// searchPath is the file of a round, in an experiment's folder.
func searchPath(folder string, round int) string {
	return filepath.Join(folder, SearchFolder, fmt.Sprintf("round-%d.json", round))
}

// ReadSearchRound reads what round of a search in an experiment's folder has decided; nil
// where nothing has been decided that this version can read. note is called with what is
// wrong with a file that is there.
func ReadSearchRound(folder string, round int, note func(string)) (*SearchRound, error) {
	path := searchPath(folder, round)
	data, err := readRegular(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r SearchRound
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err = d.Decode(&r); err == nil && r.Format != SearchFormat {
		err = fmt.Errorf("has format %d, this program reads %d", r.Format, SearchFormat)
	}
	if err == nil {
		err = CheckSeal(data, r.Checksum)
	}
	if err == nil && r.Round != round {
		err = fmt.Errorf("is of round %d", r.Round)
	}
	if err != nil {
		note(fmt.Sprintf("%s: %v; the round is decided again", path, err))
		return nil, nil
	}
	r.Checksum = ""
	return &r, nil
}

// Write writes the file of the round into an experiment's folder.
func (r *SearchRound) Write(folder string) error {
	file := *r
	file.Checksum = NoChecksum
	data, err := encodeJSON(file)
	if err != nil {
		return err
	}
	data, _ = Seal(data)
	return WriteFile(searchPath(folder, r.Round), data)
}

// DropSearchRounds removes the rounds from one on: those of an earlier search that had
// more of them.
func DropSearchRounds(folder string, from int) error {
	for ; ; from++ {
		if err := os.Remove(searchPath(folder, from)); errors.Is(err, os.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
