//go:build slow

package main

func init() { classImages = 10_000 }
