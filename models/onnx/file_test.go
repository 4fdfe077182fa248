package onnx

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sagbench/internal/fuzzing"
	pb "sagbench/models/onnx/onnxpb"
)

// at is a tensor in a file.
func at(location string) *pb.TensorProto {
	return &pb.TensorProto{ExternalData: []*pb.StringStringEntryProto{
		{Key: proto.String("offset"), Value: proto.String("0")}, {Key: proto.String("location"), Value: proto.String(location)},
	}}
}

// Weights are found wherever a graph may have them, and no file outside its folder.
func TestDataFiles(t *testing.T) {
	loop := &pb.GraphProto{Initializer: []*pb.TensorProto{at("loop"), at("shared")}}
	data, err := proto.Marshal(&pb.ModelProto{
		Graph: &pb.GraphProto{
			Name: proto.String("graph"), Initializer: []*pb.TensorProto{at("shared"), {RawData: []byte("raw")}},
			SparseInitializer: []*pb.SparseTensorProto{{Values: at("values"), Indices: at("indices")}},
			Node:              []*pb.NodeProto{{Attribute: []*pb.AttributeProto{{G: loop, T: at("attribute"), Tensors: []*pb.TensorProto{at("list")}}}}},
		},
		Functions: []*pb.FunctionProto{{Node: []*pb.NodeProto{{Attribute: []*pb.AttributeProto{{T: at("function")}}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "graph.onnx")
	want := []string{"attribute", "function", "indices", "list", "loop", "shared", "values"}
	for i, name := range want {
		want[i] = filepath.Join(folder, name)
		if err := os.WriteFile(want[i], nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := DataFiles(path); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; expected %v", got, err, want)
	}
	for location, message := range map[string]string{"../x": "is not below its folder", "/dev/zero": "is not below its folder", ".": "is no regular file", "none": "no such file"} {
		data, err := proto.Marshal(&pb.ModelProto{Graph: &pb.GraphProto{Initializer: []*pb.TensorProto{at(location)}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := DataFiles(path); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: %v, expected %q", location, err, message)
		}
	}
}

// FuzzDataFiles holds that no input panics or takes much memory.
func FuzzDataFiles(f *testing.F) {
	data, err := proto.Marshal(&pb.ModelProto{Graph: &pb.GraphProto{Initializer: []*pb.TensorProto{at("a")}, Node: []*pb.NodeProto{{Attribute: []*pb.AttributeProto{{T: at("b")}}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzing.Bounded(t, len(data), 64, func() {
			messages(data, model, func(kind message, field []byte) {
				if kind == dataEntry {
					entry(field)
				}
			})
		})
	})
}
