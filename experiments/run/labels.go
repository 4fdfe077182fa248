package run

import (
	"fmt"

	"sagbench/experiments/plan"
)

// tellLabels fills in how the images of each row get their classes: of a row whose
// networks were opened from what they know, of one that is whole from its images.
func (s *session) tellLabels(f *plan.Forecast) {
	for i, r := range s.runs {
		keys, err := networkKeys(r.Row, r.Contents)
		if err != nil {
			continue // opening them tells
		}
		if classes := s.classes[fmt.Sprint(keys)]; classes > 0 {
			f.Rows[i].Labels = r.DescribeLabels(r.Labels.PerClass(r.Seed, r.Samples, classes))
		} else if r.Images.Complete(r.Samples) {
			f.Rows[i].Labels, _ = drawnLabels(r) // a damaged file is the run's affair
		}
	}
}

// labels are a note on the classes of a row whose images are all there, where they were
// not drawn at random. It is said once.
func (s *session) labels(r *plan.Run) ([]string, error) {
	if r.Labels.Random() {
		return nil, nil
	}
	note, err := drawnLabels(r)
	if err != nil || note == "" {
		return nil, err
	}
	s.noteOnce(note)
	return []string{note}, nil
}

// drawnLabels describes the classes that the row's images have in their file; "" where
// they have none.
func drawnLabels(r *plan.Run) (string, error) {
	labels, err := r.Images.ReadLabels(r.Samples)
	if err != nil || labels == nil {
		return "", err
	}
	var counts []int
	for _, l := range labels {
		for int64(len(counts)) <= l {
			counts = append(counts, 0)
		}
		counts[l]++
	}
	return r.DescribeLabels(counts), nil
}
