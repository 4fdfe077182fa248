package configs

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Extended is a number that may also be ".inf", "-.inf" or ".nan".
type Extended float64

var extendedType = reflect.TypeFor[Extended]()

// expected names what a value of type t is written as.
func expected(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number from 0 up"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list of " + plural(t.Elem())
	case reflect.Pointer:
		return expected(t.Elem())
	default:
		return "keys and values (key: value)"
	}
}

// plural names several values of type t.
func plural(t reflect.Type) string {
	switch words := strings.TrimPrefix(expected(t), "a "); {
	case strings.HasPrefix(words, "list"):
		return strings.Replace(words, "list", "lists", 1)
	case strings.Contains(words, "number"):
		return strings.Replace(words, "number", "numbers", 1)
	case words == "text":
		return "texts"
	default:
		return "values, each " + words
	}
}

// wrong reports a value of another type than t, with what may have been meant.
func (d *decoder) wrong(b Block, t reflect.Type, hint ...string) {
	d.fault(b, "expected %s, found %s%s", expected(t), b.node.found(), strings.Join(append(hint, advice(b, t)), ""))
}

// advice is what to write instead, where that can be guessed.
func advice(b Block, t reflect.Type) string {
	single := t.Kind() != reflect.Slice && t.Kind() != reflect.Struct && t.Kind() != reflect.Map
	word := ""
	if b.node != nil {
		word = strings.ToLower(b.node.text)
	}
	switch {
	case b.node == nil:
		return ""
	case single && b.IsList() && b.path != "" && !inList.MatchString(b.path):
		return textInstead(b.node, t) + fmt.Sprintf("; for one row of the table a value write sweep: {%s: %s}", b.path, clip(b.node.inline()))
	case b.node.kind != scalar:
		return ""
	case t.Kind() == reflect.Slice:
		return fmt.Sprintf("; write [%s]", clip(b.node.inline()))
	case !single:
		return ""
	case t.Kind() == reflect.String: // only true and false get here
		return fmt.Sprintf("; if the word itself is meant, write %q", b.node.text)
	case b.node.quoted:
		if plain, err := (source{data: []byte(b.node.text)}).parse(); err == nil && plain != nil && plain.kind == scalar && plain.tag != tagText {
			return "; remove the quotes"
		}
	case t.Kind() == reflect.Bool && yaml11[word] != "":
		return "; yes, no, on and off are plain words in YAML 1.2, write " + yaml11[word]
	case word == "none":
		return "; for the default write null"
	}
	return ""
}

// textInstead is how a list is written for a text field: channel_mult: "1,2,2".
func textInstead(n *node, t reflect.Type) string {
	if t.Kind() != reflect.String {
		return ""
	}
	return fmt.Sprintf("; as one text write \"%s\"", clip(strings.ReplaceAll(strings.Trim(n.inline(), "[]"), ", ", ",")))
}

var inList = regexp.MustCompile(`(^|\.)[0-9]+(\.|$)`)

var yaml11 = map[string]string{"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}

func (d *decoder) scalar(b Block, v reflect.Value) {
	n := b.node
	numeric := n.kind == scalar && (n.tag == tagInt || n.tag == tagFloat)
	switch k := v.Kind(); {
	case k == reflect.String && n.kind == scalar && (numeric || n.tag == tagText):
		v.SetString(n.text)
	case k == reflect.Bool && n.kind == scalar && n.tag == tagBool && truth(n.text) != "":
		v.SetBool(truth(n.text) == "true")
	case numeric && (v.CanInt() || v.CanUint()):
		d.whole(b, v)
	case numeric && v.CanFloat():
		d.float(b, v)
	case k == reflect.String, k == reflect.Bool, v.CanInt(), v.CanUint(), v.CanFloat():
		d.wrong(b, v.Type())
	default:
		d.faults = append(d.faults, fmt.Errorf("configs: %s cannot be read from YAML", v.Type()))
	}
}

// truth is "true", "false" or "" for a text that is neither.
func truth(text string) string {
	switch low := strings.ToLower(text); low {
	case "true", "false":
		return low
	}
	return ""
}

func (d *decoder) whole(b Block, v reflect.Value) {
	negative, size, err := parseWhole(b.node.text)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		d.wrong(b, v.Type(), "; "+err.Error())
		return
	}
	bits := v.Type().Bits()
	if v.CanUint() {
		if err == nil && !(negative && size > 0) && !v.OverflowUint(size) {
			v.SetUint(size)
		} else if negative {
			d.wrong(b, v.Type())
		} else {
			d.fault(b, "expected a whole number from 0 to %d, found %s", uint64(math.MaxUint64)>>(64-bits), clip(b.node.text))
		}
		return
	}
	limit := uint64(1) << (bits - 1)
	if !negative {
		limit--
	}
	if err != nil || size > limit {
		d.fault(b, "expected a whole number from %d to %d, found %s", int64(math.MinInt64)>>(64-bits), int64(math.MaxInt64)>>(64-bits), clip(b.node.text))
		return
	}
	if negative {
		v.SetInt(-int64(size))
	} else {
		v.SetInt(int64(size))
	}
}

// exactFloat is the largest whole number up to which every one is a float64.
const exactFloat = 1 << 53

var errNoNumber = errors.New("this is no number")

// parseWhole reads the text of a YAML number as sign and magnitude; fractional
// and exponent forms are taken where they are whole.
func parseWhole(text string) (negative bool, size uint64, err error) {
	negative, digits := cutSign(text)
	if err := leadingZero(digits); err != nil {
		return negative, 0, err
	}
	size, err = strconv.ParseUint(digits, 0, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return negative, size, err
	}
	f, err := strconv.ParseFloat(digits, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange), !(f >= 0):
		return negative, 0, errNoNumber
	case f > exactFloat:
		return negative, 0, strconv.ErrRange
	case f != math.Trunc(f):
		return negative, 0, errors.New("it has a fraction")
	}
	return negative, uint64(f), nil
}

// parseFloat reads the text of a YAML number.
func parseFloat(text string) (float64, error) {
	negative, digits := cutSign(text)
	if err := leadingZero(digits); err != nil {
		return 0, err
	}
	var f float64
	size, err := strconv.ParseUint(digits, 0, 64)
	switch low := strings.ToLower(digits); {
	case err == nil:
		f = float64(size)
	case low == ".inf":
		f = math.Inf(1)
	case low == ".nan":
		f = math.NaN()
	default:
		if f, err = strconv.ParseFloat(digits, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0, errNoNumber
		} else if err != nil {
			return 0, strconv.ErrRange
		}
	}
	if negative {
		f = -f
	}
	return f, nil
}

// cutSign takes the sign and the readers' underscores off a number.
func cutSign(text string) (negative bool, digits string) {
	digits = strings.ReplaceAll(text, "_", "")
	if rest, ok := strings.CutPrefix(digits, "-"); ok {
		return true, rest
	}
	return false, strings.TrimPrefix(digits, "+")
}

// leadingZero refuses 010, which YAML 1.1 reads as 8 and YAML 1.2 as 10.
func leadingZero(digits string) error {
	if len(digits) < 2 || digits[0] != '0' || strings.Trim(digits, "0123456789") != "" {
		return nil
	}
	short := strings.TrimLeft(digits[:len(digits)-1], "0") + digits[len(digits)-1:]
	return fmt.Errorf("a leading zero means octal to some readers, write %s", clip(short))
}

func (d *decoder) float(b Block, v reflect.Value) {
	f, err := parseFloat(b.node.text)
	switch finite := !math.IsNaN(f) && !math.IsInf(f, 0); {
	case errors.Is(err, strconv.ErrRange), err == nil && finite && v.OverflowFloat(f):
		d.fault(b, "expected a number that fits in %d bits, found %s", v.Type().Bits(), clip(b.node.text))
	case err != nil:
		d.wrong(b, v.Type(), "; "+err.Error())
	case !finite && v.Type() != extendedType:
		d.fault(b, "expected a finite number, found %s", clip(b.node.text))
	default:
		v.SetFloat(f)
	}
}
