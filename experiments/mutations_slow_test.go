//go:build slow

package main

func init() { everyMutation = 1 }
