package configs

import "slices"

// Without is the mapping less the named keys.
func (b Block) Without(names ...string) Block {
	if b.IsMapping() {
		b.node = b.node.without(names...)
	}
	return b
}

// Only is the mapping with no more than the named keys.
func (b Block) Only(names ...string) Block {
	var rest []string
	for _, k := range b.Keys() {
		if !slices.Contains(names, k) {
			rest = append(rest, k)
		}
	}
	return b.Without(rest...)
}
