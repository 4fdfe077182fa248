//go:build slow

package run

func init() { flippedBytes = 200 }
