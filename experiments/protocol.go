package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sagbench/configs"
	"sagbench/eval"
)

// registry reads metrics whose defaults are a protocol's.
func registry(p eval.Protocol) configs.Registry[eval.Metric] {
	return configs.Registry[eval.Metric](p.Metrics)
}

// describeProtocol names a protocol with all that was set otherwise: "adm", or
// "adm with resize=torch, is.splits=10".
func describeProtocol(p eval.Protocol, n featureNetwork, metrics []configs.Named[eval.Metric]) (string, error) {
	var others []string
	switch {
	case n.name != "inception":
		others = append(others, "network="+n.name)
	case string(n.resize) != p.Resize:
		others = append(others, fmt.Sprintf("resize=%s", n.resize))
	}
	for _, m := range metrics {
		own, err := fieldsOf(m.Value)
		if err != nil {
			return "", err
		}
		usual, err := fieldsOf(p.Metrics[m.Name]())
		if err != nil {
			return "", err
		}
		for _, field := range slices.Sorted(maps.Keys(own)) {
			if !bytes.Equal(own[field], usual[field]) {
				others = append(others, fmt.Sprintf("%s.%s=%s", m.Name, field, strings.Trim(string(own[field]), `"`)))
			}
		}
	}
	if len(others) == 0 {
		return p.Name, nil
	}
	return p.Name + " with " + strings.Join(others, ", "), nil
}

// foreign tells of the metrics that the protocol's program does not have.
func foreign(p eval.Protocol, metrics []configs.Named[eval.Metric]) []string {
	var names []string
	for _, m := range metrics {
		if !slices.Contains(p.Own, m.Name) && eval.NetworkOf(m.Value) == "" { // one with a network of its own has its own protocol
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s: not a metric of %s; computed as docs/evaluation.md says, from the same features", strings.Join(names, ", "), p.Name)}
}
