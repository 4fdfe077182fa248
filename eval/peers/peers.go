// Package peers holds the script that measures public evaluators, for the
// comparison that `make bench-peers` prints. Their code is not part of it:
// install.sh fetches the published packages into an environment of their own.
package peers

import _ "embed"

// Script is a Python program; its first lines say how it is called.
//
//go:embed peers.py
var Script []byte
