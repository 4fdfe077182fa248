package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func runCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "run EXPERIMENT.yaml [path=value...]",
		Short: "draw an experiment's images, evaluate them and print the table",
		Long: `Draws the images of every row of an experiment, evaluates them and writes

  RESULTS/<experiment>/<row>-<run id>/run.yaml        the row, every default written out
                                      samples/*.npz   arr_0 uint8 [N,H,W,3], arr_1 labels
                                      features.npz    Inception's features of them
                                      metrics.json    scores, hashes of all inputs
  RESULTS/<experiment>/table.md, table.csv, table.tex
                       <metric>.svg, .png             where a number is swept: see plot

The run id is a hash of all that changes pixels. Stop it at any moment, with Ctrl-C or
kill -9, and run it again: what is there is kept, and the files in the end are the same.
More samples later continue the same run. Settings after the file override it.`,
		Example: `  sagbench run configs/table1-fashion.yaml
  sagbench run configs/table1-fashion.yaml samples=64 sampler.ddpm.steps=5
  sagbench run configs/table1-fashion.yaml sweep.guidance.sag.scale=[0,0.5] --results /data/results`,
		Args: experimentArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := newSession(g, args[0], args[1:], cmd.OutOrStdout())
			if err != nil {
				return err
			}
			defer s.close()
			return s.resumable(s.run(cmd.Context(), true))
		},
	}
}

func sampleCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "sample EXPERIMENT.yaml [path=value...]",
		Short: "draw an experiment's images and leave them unevaluated",
		Long: `Draws the images of every row of an experiment, as run does, and stops there: it
needs neither a reference batch nor Inception. A later run evaluates them.`,
		Example: `  sagbench sample configs/table1-fashion.yaml
  sagbench sample my-model.yaml samples=16 metrics=[]`,
		Args: experimentArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := newSession(g, args[0], args[1:], cmd.OutOrStdout())
			if err != nil {
				return err
			}
			defer s.close()
			for _, r := range s.rows {
				r.metrics = nil
			}
			return s.resumable(s.run(cmd.Context(), false))
		},
	}
}

// experimentArgs takes a file and settings.
func experimentArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s: name an experiment's YAML file, such as configs/table1-fashion.yaml", cmd.Name())
	}
	for _, a := range args[1:] {
		if !strings.Contains(a, "=") {
			return fmt.Errorf("%s: %q is no setting: expected dotted.path=value after the file, such as samples=64", cmd.Name(), a)
		}
	}
	return nil
}

// run draws, and with evaluate set evaluates, every row.
func (s *session) run(ctx context.Context, evaluate bool) error {
	if missing := s.checkInputs(); missing != nil {
		if todo, err := s.forecast(s.results, nil); err == nil {
			return fmt.Errorf("%w\n%s", missing, todo)
		}
		return missing
	}
	if err := s.identify(); err != nil {
		return err
	}
	lock, err := lockFolder(s.folder)
	if err != nil {
		return err
	}
	defer lock.release()
	if err := s.tidy(); err != nil {
		return err
	}
	if err := s.checkNetworks(); err != nil {
		return err
	}
	if err := s.announce(); err != nil {
		return err
	}
	var scored []*Metrics
	for _, r := range s.runs {
		m, err := s.row(ctx, r)
		if err != nil {
			return err
		}
		if m != nil {
			scored = append(scored, m)
		}
	}
	s.progress.end()
	if !evaluate || len(scored) == 0 {
		return nil
	}
	if err := writeTables(s.folder, scored); err != nil {
		return err
	}
	if err := writePlots(s.folder, scored); err != nil {
		return err
	}
	return printTable(s.out, scored)
}

// announce says what is about to be done, if there is anything.
func (s *session) announce() error {
	todo, err := s.forecast(s.results, s.done)
	if err != nil {
		return err
	}
	if todo.images() > 0 {
		s.progress.note(strings.TrimRight(todo.String(), "\n"))
	}
	return nil
}

// row takes one row to the end; the Metrics are nil where it has no metrics.
func (s *session) row(ctx context.Context, r *run) (*Metrics, error) {
	m, scored, err := s.known(r)
	if err != nil {
		return nil, err
	}
	if !scored || !r.complete() {
		if err := s.draw(ctx, r); err != nil {
			return nil, err
		}
	}
	if err := s.record(r); err != nil {
		return nil, err
	}
	if len(r.metrics) == 0 {
		s.progress.note(fmt.Sprintf("%s: %d images in %s", s.rowName(r), r.Samples, r.store.folder))
		return nil, nil
	}
	if !scored {
		if m.Scores, err = s.evaluate(ctx, r); err != nil {
			return nil, err
		}
		m.Inputs.Samples = r.samples
	}
	if err := m.write(r.folder); err != nil {
		return nil, err
	}
	s.progress.note(s.rowName(r) + ":" + m.summary())
	return m, nil
}

// checkNetworks opens every network that images are to be drawn with, before
// hours are spent on the first: a checkpoint that does not fit its flags, or an
// attention layer that is not there, is told of at once. Those of the first row
// stay open.
func (s *session) checkNetworks() error {
	seen := map[string]bool{}
	var distinct []*run
	for _, r := range s.runs {
		keys, err := r.networkKeys(r.contents)
		if err != nil {
			return err
		}
		key := fmt.Sprint(keys)
		if !seen[key] && !r.complete() {
			seen[key] = true
			distinct = append(distinct, r)
		}
	}
	faults := make([]error, len(distinct))
	for i, r := range slices.Backward(distinct) {
		faults[i] = s.prepare(r)
	}
	return errors.Join(faults...)
}

// resumable adds to an interruption how to go on.
func (s *session) resumable(err error) error {
	if errors.Is(err, context.Canceled) {
		return &resumable{err, "nothing is lost; to go on: " + s.resume}
	}
	return err
}
