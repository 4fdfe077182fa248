package models

import "sagbench/models/tensor"

// A PixelRange names the range in which a network takes pixels.
type PixelRange string

// The ranges, for v in [0,255].
const (
	ByteRange     PixelRange = "byte"     // v
	UnitRange     PixelRange = "unit"     // v/255
	SignedRange   PixelRange = "signed"   // 2·(v/255) − 1
	ImageNetRange PixelRange = "imagenet" // (v/255 − mean)/std, a channel its own
)

// The mean and the standard deviation of ImageNet's channels in [0,1] that
// torchvision names.
var imageNetMean, imageNetStd = [3]float32{0.485, 0.456, 0.406}, [3]float32{0.229, 0.224, 0.225}

// pixelRanges map v in [0,255] of a channel, in float32 and in torch's order.
var pixelRanges = map[PixelRange]func(v float32, channel int) float32{
	ByteRange:   func(v float32, _ int) float32 { return v },
	UnitRange:   func(v float32, _ int) float32 { return v / 255 },
	SignedRange: func(v float32, _ int) float32 { return float32(2*float32(v/255)) - 1 },
	ImageNetRange: func(v float32, channel int) float32 {
		return float32(float32(v/255)-imageNetMean[channel]) / imageNetStd[channel]
	},
}

// apply maps images [N,3,H,W] in [0,255].
func (p PixelRange) apply(x tensor.Tensor) {
	f, plane := pixelRanges[p], x.RowLen()/3
	for i, v := range x.Data {
		x.Data[i] = f(v, i/plane%3)
	}
}
