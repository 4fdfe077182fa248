package inspect

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sagbench/internal/fuzzing"
)

// Whatever the keys and shapes, the families that are guessed are not built beyond
// what the header can mean. The header's length is made right.
func FuzzInspect(f *testing.F) {
	for _, header := range []string{
		`{}`,
		`{"time_embed.0.weight":{"dtype":"F32","shape":[0,1000000000000],"data_offsets":[0,0]},"input_blocks.0.0.weight":{"dtype":"F32","shape":[1000000000,0,3,3],"data_offsets":[0,0]},"out.2.weight":{"dtype":"F32","shape":[3,0,3,3],"data_offsets":[0,0]},"input_blocks.1.0.in_layers.2.weight":{"dtype":"F32","shape":[1000000000,0],"data_offsets":[0,0]}}`,
		`{"x_embedder.proj.weight":{"dtype":"F32","shape":[1000000000,0,1000000000,2],"data_offsets":[0,0]},"pos_embed":{"dtype":"F32","shape":[1,1000000000000,0],"data_offsets":[0,0]},"final_layer.linear.weight":{"dtype":"F32","shape":[0,1],"data_offsets":[0,0]},"y_embedder.embedding_table.weight":{"dtype":"F32","shape":[1000000000,0],"data_offsets":[0,0]},"blocks.0.mlp.fc1.weight":{"dtype":"F32","shape":[1000000000,0],"data_offsets":[0,0]}}`,
		`{"fc.weight":{"dtype":"F32","shape":[0,6400000000000],"data_offsets":[0,0]},"Conv2d_1a_3x3.conv.weight":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`,
		`{"patch_embed.proj.weight":{"dtype":"F32","shape":[6400000000,0,14,14],"data_offsets":[0,0]},"pos_embed":{"dtype":"F32","shape":[1,1000000000001,0],"data_offsets":[0,0]},"blocks.0.mlp.fc1.weight":{"dtype":"F32","shape":[1000000000,0],"data_offsets":[0,0]}}`,
		`{"model.diffusion_model.input_blocks.0.0.weight":{"dtype":"F32","shape":[1000000000,0,3,3],"data_offsets":[0,0]},"first_stage_model.decoder.conv_in.weight":{"dtype":"F32","shape":[1000000000,0,3,3],"data_offsets":[0,0]}}`,
	} {
		f.Add([]byte(header), 4)
		f.Add([]byte(header), 0)
	}
	f.Fuzz(func(t *testing.T, header []byte, data int) {
		path := filepath.Join(t.TempDir(), "fuzz.safetensors")
		file := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header, make([]byte, data&0xfff))
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		fuzzing.Bounded(t, 16<<10+len(header), 1<<12, func() {
			if in, err := inspectFile(path, true); err == nil {
				in.print(discard{})
			}
		})
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
