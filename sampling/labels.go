package sampling

import (
	"fmt"
	"math"
	"slices"
)

// Labels say which class each image of a run is drawn with: a function of the seed
// and of the image's number alone, so that batches, workers and restarts change
// nothing. The zero value draws classes at random, uniformly and with replacement, as
// guided-diffusion's scripts/image_sample.py and DiT's sample_ddp.py do; from a
// generator an image, as EDM's generate.py (StackedRandomGenerator.randint) does.
type Labels struct {
	Balanced bool         // image i has class i mod K
	IDs      []int64      // image i has the class of place i mod n of the n
	Counts   []ClassCount // so many images of each class, by ascending class
}

// A ClassCount is how many images of a class there are.
type ClassCount struct {
	Class  int64
	Images int
}

// Random reports whether classes are drawn at random.
func (l Labels) Random() bool { return !l.Balanced && len(l.IDs) == 0 && len(l.Counts) == 0 }

// Total is the number of images that Counts ask for.
func (l Labels) Total() int {
	n := 0
	for _, c := range l.Counts {
		n += c.Images
	}
	return n
}

// Of is the class of an image, 0 … classes-1.
func (l Labels) Of(seed uint64, image, classes int) int64 {
	switch {
	case l.Balanced:
		return int64(image % max(1, classes))
	case len(l.IDs) > 0:
		return l.IDs[image%len(l.IDs)]
	case len(l.Counts) > 0:
		return l.counted(image)
	}
	return Label(seed, image, classes)
}

// counted is the class of an image where Counts say how many images each class has.
// The images of a class do not follow on one another: image i has the class of place
// i·a mod N of the sorted ones, a next to N/φ and prime to N, so that every beginning
// of the set has the classes about in their proportions (a Kronecker sequence).
func (l Labels) counted(image int) int64 {
	n := l.Total()
	at := image % n * goldenStride(n) % n
	for _, c := range l.Counts {
		if at < c.Images {
			return c.Class
		}
		at -= c.Images
	}
	panic("sampling: a place beyond all classes") // Total is their sum
}

// goldenStride is the whole number nearest to n/φ that has no factor in common with n.
func goldenStride(n int) int {
	near := int(math.Round(float64(n) / math.Phi))
	for d := 0; ; d++ {
		for _, a := range []int{near - d, near + d} {
			if a > 0 && coprime(a, n) {
				return a
			}
		}
	}
}

func coprime(a, b int) bool {
	for b != 0 {
		a, b = b, a%b
	}
	return a == 1
}

// Check is an error where a class is none of the network's, 0 … classes-1.
func (l Labels) Check(classes int) error {
	bad := func(class int64) error {
		return fmt.Errorf("class %d is none of the network's, which are 0 to %d", class, classes-1)
	}
	for _, id := range l.IDs {
		if id < 0 || id >= int64(classes) {
			return bad(id)
		}
	}
	for _, c := range l.Counts {
		if c.Class < 0 || c.Class >= int64(classes) {
			return bad(c.Class)
		}
	}
	return nil
}

// PerClass counts the first images of a run by class, for 0 … classes-1.
func (l Labels) PerClass(seed uint64, images, classes int) []int {
	counts := make([]int, classes)
	if len(l.Counts) > 0 && images == l.Total() {
		for _, c := range l.Counts {
			counts[c.Class] += c.Images
		}
		return counts
	}
	for i := range images {
		counts[l.Of(seed, i, classes)]++
	}
	return counts
}

// DescribeCounts tells of the number of images of each class in a few words: "7 images
// of each of classes 0 to 3, 6 of each of classes 4 to 9", or where that would be long
// "1,000 classes of 31 to 75 images".
func DescribeCounts(counts []int) string {
	byCount := map[int][]int{} // number of images → classes
	for class, n := range counts {
		if n > 0 {
			byCount[n] = append(byCount[n], class)
		}
	}
	sizes := make([]int, 0, len(byCount))
	drawn := 0
	for n, classes := range byCount {
		sizes, drawn = append(sizes, n), drawn+len(classes)
	}
	slices.Sort(sizes)
	slices.Reverse(sizes)
	if len(sizes) == 0 {
		return "no images"
	}
	var text string
	ranges := 0
	for i, n := range sizes {
		if i > 0 {
			text += ", "
		}
		of, some := describeClasses(byCount[n])
		text, ranges = text+fmt.Sprintf("%d of %s", n, of), ranges+some
	}
	if ranges <= maxRanges {
		return text
	}
	few, many := slices.Min(sizes), slices.Max(sizes)
	text = fmt.Sprintf("%d classes of %d to %d images", drawn, few, many)
	if few == many {
		text = fmt.Sprintf("%d classes of %d images each", drawn, few)
	}
	if none := len(counts) - drawn; none > 0 {
		text += fmt.Sprintf(", %d of none", none)
	}
	return text
}

// maxRanges is how many runs of classes are named one by one.
const maxRanges = 8

// describeClasses names ascending classes by their runs, and counts these: "class 3",
// "each of classes 0 to 3 and 7".
func describeClasses(classes []int) (text string, runs int) {
	var parts []string
	for from := 0; from < len(classes); {
		to := from
		for to+1 < len(classes) && classes[to+1] == classes[to]+1 {
			to++
		}
		if to == from {
			parts = append(parts, fmt.Sprint(classes[from]))
		} else {
			parts = append(parts, fmt.Sprintf("%d to %d", classes[from], classes[to]))
		}
		from = to + 1
	}
	runs = len(parts)
	for i, p := range parts {
		switch {
		case i == 0:
		case i == len(parts)-1:
			text += " and "
		default:
			text += ", "
		}
		text += p
	}
	if len(classes) == 1 {
		return "class " + text, runs
	}
	return "each of classes " + text, runs
}
