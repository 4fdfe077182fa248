package features

import (
	"context"
	"fmt"
	"html"
	"slices"
	"strings"

	"sagbench/models"
	"sagbench/models/ort"
	"sagbench/sampling/tensor"
)

// A TextForm is how a program hands a text to CLIP.
type TextForm struct {
	Prefix string // before the text
	// KeepEnd: of a text that is too long the last token is the end token, at which
	// the network pools. Without it the end token is cut off with the rest, and
	// the network pools at the begin token, whose embedding is that of every text.
	KeepEnd bool
	// Unescape: HTML's escapes are resolved twice, and spaces around the text are
	// taken off.
	Unescape bool
}

// TextForms are the forms by the name of the definition that has them.
//
// torchmetrics (functional/multimodal/clip_score.py) calls transformers' processor
// without truncation and cuts the ids after max_position_embeddings. clipscore puts
// "A photo depicts " before each text and calls openai/CLIP's tokenizer with
// truncate=True, which cleans it (clip/simple_tokenizer.py basic_clean: also by
// ftfy, which repairs wrongly decoded text and is left out here).
var TextForms = map[string]TextForm{
	"torchmetrics": {},
	"jmhessel":     {Prefix: "A photo depicts ", KeepEnd: true, Unescape: true},
}

// textBatch is how many texts go through the network in one call.
const textBatch = 32

// textLengths are the lengths that texts are filled up to, short ones first: the network
// looks at no token after the end, and most captions have a dozen.
var textLengths = []int{16, 32}

// of is a text in the form.
func (f TextForm) of(text string) string {
	if f.Unescape {
		text = strings.TrimSpace(html.UnescapeString(html.UnescapeString(text)))
	}
	return f.Prefix + text
}

// CheckTexts implements Texting.
func (n *clipNet) CheckTexts() (err error) {
	if n.texts == nil {
		n.texts, err = n.file.Texts(n.opt)
		if err == nil && n.texts.OwnTokenizer {
			n.file.Notes = append(n.file.Notes, "no tokenizer lies beside the network: CLIP's own was taken, whose vocabulary has as many tokens")
		}
	}
	return err
}

// rows are the ids of texts without padding, and how many were cut.
func (n *clipNet) rows(texts []string, form TextForm) (all [][]int64, cut int, err error) {
	if err := n.CheckTexts(); err != nil {
		return nil, 0, err
	}
	tokenizer, most := n.texts.Tokenizer, n.texts.Length
	for _, text := range texts {
		ids := slices.Concat([]int64{tokenizer.BOS()}, tokenizer.Tokens(form.of(text)), []int64{tokenizer.EOS()})
		if len(ids) > most {
			cut++
			if ids = ids[:most]; form.KeepEnd {
				ids[most-1] = tokenizer.EOS()
			}
		}
		all = append(all, ids)
	}
	return all, cut, nil
}

// padded are rows of ids filled up to a length.
func padded(rows [][]int64, length int, pad int64) ort.Array {
	ids := make([]int64, 0, len(rows)*length)
	for _, r := range rows {
		ids = append(append(ids, r...), slices.Repeat([]int64{pad}, length-len(r))...)
	}
	return ort.Array{Shape: []int{len(rows), length}, Data: ids}
}

// TextIDs implements Texting. Rows are filled up with the tokenizer's padding or,
// where the form keeps the end, with 0 as openai/CLIP does.
func (n *clipNet) TextIDs(texts []string, form TextForm) (ids ort.Array, cut int, err error) {
	rows, cut, err := n.rows(texts, form)
	if err != nil {
		return ids, 0, err
	}
	pad := n.texts.Tokenizer.Pad()
	if form.KeepEnd {
		pad = 0
	}
	return padded(rows, n.texts.Length, pad), cut, nil
}

// Texts implements Texting. Texts of like length share a call.
func (n *clipNet) Texts(ctx context.Context, texts []string, form TextForm, tick func(int)) (tensor.Tensor, error) {
	rows, _, err := n.rows(texts, form)
	if err != nil {
		return tensor.Tensor{}, err
	}
	out := tensor.New(len(rows), n.Width())
	at := make([]int, 0, len(rows)) // those of one length
	shorter := 0
	for _, length := range append(slices.Clone(textLengths), n.texts.Length) {
		length = min(length, n.texts.Length)
		at = at[:0]
		for i, r := range rows {
			if len(r) > shorter && len(r) <= length {
				at = append(at, i)
			}
		}
		for batch := range slices.Chunk(at, textBatch) {
			if err := n.embed(ctx, out, rows, batch, length); err != nil {
				return out, err
			}
			tick(len(batch))
		}
		shorter = length
	}
	return out, nil
}

// embed puts the embeddings of some rows of ids into out.
func (n *clipNet) embed(ctx context.Context, out tensor.Tensor, rows [][]int64, batch []int, length int) error {
	var ids [][]int64
	for _, i := range batch {
		ids = append(ids, rows[i])
	}
	embeds, err := n.texts.Embed(ctx, padded(ids, length, n.texts.Tokenizer.Pad()))
	if err != nil {
		return err
	}
	if err := models.CheckFinite(embeds, n.file.Path(), "text_embeds"); err != nil {
		return err
	}
	if embeds.RowLen() != out.RowLen() {
		return fmt.Errorf("models: %s: embeddings of texts have %d values, those of images %d", n.file.Path(), embeds.RowLen(), out.RowLen())
	}
	for j, i := range batch {
		copy(out.Row(i), embeds.Row(j))
	}
	return nil
}
