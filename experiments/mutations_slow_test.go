//go:build slow

package main

func init() { everyMutation, flippedBytes = 1, 200 }
