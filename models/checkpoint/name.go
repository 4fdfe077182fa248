package checkpoint

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// hashedName is a file name that ends in the beginning of a sha256, as PyTorch's
// publishers write it: pt_inception-2015-12-05-6726825d.pth.
var hashedName = regexp.MustCompile(`-([0-9a-f]{8,64})\.[A-Za-z]+$`)

// CheckName holds the beginning of a sha256 that the name of a file ends in
// against the content's, as torch.hub's check_hash does. A name without one
// passes, and so does a number alone, which may be a date.
func CheckName(path, sha256 string) error {
	m := hashedName.FindStringSubmatch(filepath.Base(path))
	if m == nil || !strings.ContainsAny(m[1], "abcdef") || strings.HasPrefix(sha256, m[1]) {
		return nil
	}
	return fmt.Errorf("checkpoint: %s: the name says that its sha256 begins with %s, it is %s: the file is damaged or another one; download it again, or give it another name", path, m[1], sha256)
}
