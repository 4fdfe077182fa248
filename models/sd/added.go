package sd

import (
	"errors"
	"fmt"

	"sagbench/models/checkpoint"
	"sagbench/models/onnx"
	"sagbench/models/ort"
	"sagbench/sampling"
	"sagbench/sampling/tensor"
)

// timeIDs are the numbers by which SDXL's U-Net is told of sizes: height and width
// of the original image, top and left of its crop, height and width of the target.
const timeIDs = 6

// textTime is the one supported addition_embed_type: a pooled text embedding and
// time ids.
const textTime = "text_time"

// validateAdded checks what is embedded beside the time.
func (c *sdUNetConfig) validateAdded() error {
	width, all := c.AdditionTimeEmbedDim, c.ProjectionInputsWidth
	switch {
	case c.AdditionEmbedType == nil && width != nil:
		return errors.New("addition_time_embed_dim is set, but addition_embed_type is not")
	case c.AdditionEmbedType == nil && all != nil:
		return errors.New("projection_class_embeddings_input_dim is set, but addition_embed_type is not")
	case c.AdditionEmbedType == nil:
		return nil
	case *c.AdditionEmbedType != textTime:
		return oneOf("addition_embed_type", *c.AdditionEmbedType, textTime)
	case width == nil || all == nil:
		return errors.New("addition_embed_type is text_time, which needs addition_time_embed_dim and projection_class_embeddings_input_dim")
	}
	err := check(quantity{"addition_time_embed_dim", *width, maxWidth}, quantity{"projection_class_embeddings_input_dim", *all, 16 * maxWidth})
	switch {
	case err != nil:
	case *width%2 != 0:
		return fmt.Errorf("addition_time_embed_dim is %d, expected an even number", *width)
	case *all == 5**width+c.CrossAttentionDim: // it is told of five numbers, and reads one text encoder
		return errors.New("projection_class_embeddings_input_dim: " + refinerIs)
	case c.textEmbeds() < 1:
		return fmt.Errorf("projection_class_embeddings_input_dim is %d, expected more than %d times addition_time_embed_dim %d", *all, timeIDs, *width)
	}
	return err
}

// textEmbeds is the width of the pooled text embedding.
func (c *sdUNetConfig) textEmbeds() int {
	return *c.ProjectionInputsWidth - timeIDs**c.AdditionTimeEmbedDim
}

// added is what UNet2DConditionModel.get_aug_embed adds to the embedding of the
// time with addition_embed_type text_time: text_embeds [N,P] and the sinusoids of
// each of time_ids [N,6] behind it, through two layers → [N,out].
func (c *sdUNetConfig) added(m *onnx.Module, out int) onnx.Value {
	text := m.Input("text_embeds", checkpoint.F32, onnx.Batch, c.textEmbeds())
	ids := m.Input("time_ids", checkpoint.F32, onnx.Batch, timeIDs)
	sizes := m.TimestepEmbedding(ids, *c.AdditionTimeEmbedDim, 10000) // [N, 6, dim]
	sizes = m.Reshape(sizes, onnx.Batch, timeIDs**c.AdditionTimeEmbedDim)
	h := m.In("add_embedding.linear_1").Linear(m.Concat(1, text, sizes), out)
	return m.In("add_embedding.linear_2").Linear(m.SiLU(h), out)
}

// addedInputs are the inputs that added reads, with their widths.
func (c *sdUNetConfig) addedInputs() map[string]int {
	if c.AdditionEmbedType == nil {
		return nil
	}
	return map[string]int{"text_embeds": c.textEmbeds(), "time_ids": timeIDs}
}

// putAdded gives a network's inputs those that added reads: the vector [N,P+6] of
// a condition, cut in two.
func (c *sdUNetConfig) putAdded(in map[string]ort.Array, vector tensor.Tensor) error {
	if c.AdditionEmbedType == nil {
		return nil
	}
	p := c.textEmbeds()
	if len(vector.Shape) != 2 || vector.Shape[1] != p+timeIDs {
		return fmt.Errorf("models: sdxl: the condition's Vector has shape %v, expected [N,%d]: a pooled text embedding and %d sizes", vector.Shape, p+timeIDs, timeIDs)
	}
	text, ids := tensor.New(vector.Rows(), p), tensor.New(vector.Rows(), timeIDs)
	sampling.EachImage(vector.Rows(), func(i int) {
		copy(text.Row(i), vector.Row(i)[:p])
		copy(ids.Row(i), vector.Row(i)[p:])
	})
	in["text_embeds"], in["time_ids"] = ort.Floats(text), ort.Floats(ids)
	return nil
}
