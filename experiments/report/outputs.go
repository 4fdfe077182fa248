package report

import (
	"errors"
	"io"

	"sagbench/experiments/human"
	"sagbench/experiments/store"
)

// EvaluationOutputs say where evaluations go beside the terminal; - is standard output,
// in place of the table.
type EvaluationOutputs struct {
	JSON, CSV string // paths; "": none
	Append    bool   // add to the CSV in place of replacing it
	Picture   string // path of the picture of neighbours; "": none
	PerClass  bool   // whether there are scores of single classes
	Verbose   bool   // tell in the table how the arithmetic went
}

// Check reports what keeps the files from being written, before anything is computed.
func (o EvaluationOutputs) Check(inputs []string) error {
	switch {
	case o.JSON == "-" && o.CSV == "-":
		return human.Misusef("--json and --csv cannot both go to standard output")
	case o.Append && (o.CSV == "" || o.CSV == "-"):
		return human.Misusef("--append adds to a file: name it with --csv FILE")
	}
	if o.Picture != "" {
		if err := checkPicture(o.Picture); err != nil {
			return human.Misusef("-o: %w", err)
		}
	}
	for _, out := range []struct{ flag, path string }{{"-json", o.JSON}, {"-csv", o.CSV}, {"o", o.Picture}} {
		if out.path == "" || out.path == "-" {
			continue
		}
		err := store.CheckOutput(out.path)
		if err == nil {
			err = store.CheckApart(out.path, inputs...)
		}
		if err == nil && out.flag == "-csv" && o.Append {
			err = store.CheckAppend(out.path, evaluationHead(o.PerClass))
		}
		if err != nil {
			return human.Misusef("-%s: %w", out.flag, err)
		}
		inputs = append(inputs, out.path)
	}
	return nil
}

// Write writes the files, and the table to w unless a file goes there.
func (o EvaluationOutputs) Write(w io.Writer, all *store.Evaluations) error {
	put := func(path string, data []byte, err error, write func(string, []byte) error) error {
		switch {
		case path == "" || err != nil:
			return err
		case path == "-":
			_, err = w.Write(data)
			return err
		}
		return write(path, data)
	}
	writeCSV := store.WriteOutput
	if o.Append {
		writeCSV = store.AppendCSV
	}
	json, errJSON := all.Encode()
	csv, errCSV := EvaluationCSV(all, o.PerClass)
	err := errors.Join(put(o.JSON, json, errJSON, store.WriteOutput), put(o.CSV, csv, errCSV, writeCSV))
	if o.Picture != "" && len(all.Evaluations) == 1 && all.Evaluations[0].Near != nil {
		picture, errDraw := drawNeighbours(all.Evaluations[0].Near)
		err = errors.Join(err, put(o.Picture, picture, errDraw, store.WriteOutput))
	}
	if o.JSON != "-" && o.CSV != "-" {
		err = errors.Join(err, PrintEvaluations(w, all, o.Verbose))
	}
	return err
}
