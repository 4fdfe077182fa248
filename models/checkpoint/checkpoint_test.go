package checkpoint

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	const sum = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
	for _, name := range []string{
		"pt_inception-2015-12-05-6726825d.pth", "/m/weights-inception-2015-12-05-6726825d.pth", "net-" + sum + ".pt",
		"dinov2_vitl14_pretrain.pth", "net-20231105.pth", "net-beef.pth", "deadbeef.pth", "net-deadbeef",
	} {
		if err := CheckName(name, sum); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"resnet50-0676ba61.pth", "/m/net-6726825e.safetensors"} {
		if err := CheckName(name, sum); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), sum) {
			t.Errorf("%s with sha256 %s: %v", name, sum, err)
		}
	}
}
