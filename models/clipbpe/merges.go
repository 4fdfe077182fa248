package clipbpe

import "container/heap"

// endOfWord marks the last letter of a piece.
const endOfWord = "</w>"

// A pair is two neighbouring tokens, by id.
type pair struct{ left, right int64 }

// A merge is what a pair becomes, and how early training found it.
type merge struct {
	rank int
	id   int64
}

// A symbol is a token of a piece under construction, in a linked list; dead
// ones were merged into their left neighbour.
type symbol struct {
	id         int64
	prev, next int // -1 at the ends
	dead       bool
}

// A candidate is a merge of the symbol at a place with the next one that was
// possible when it was noted.
type candidate struct {
	merge
	at int
}

// candidates is a heap: the earliest merge first, of equal ones the leftmost.
type candidates []candidate

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, j int) bool {
	return c[i].rank < c[j].rank || c[i].rank == c[j].rank && c[i].at < c[j].at
}
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }

// Push implements heap.Interface.
func (c *candidates) Push(x any) { *c = append(*c, x.(candidate)) }

// Pop implements heap.Interface.
func (c *candidates) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// merged appends the tokens of one piece to ids. A letter that the vocabulary
// lacks is the unknown token.
func (t *Tokenizer) merged(ids []int64, letters []string) []int64 {
	symbols := make([]symbol, len(letters))
	for i, l := range letters {
		if i == len(letters)-1 {
			l += endOfWord
		}
		id, ok := t.vocab[l]
		if !ok {
			id = t.unknown
		}
		symbols[i] = symbol{id: id, prev: i - 1, next: i + 1}
	}
	symbols[len(symbols)-1].next = -1

	var queue candidates
	note := func(at int) {
		if at < 0 || symbols[at].next < 0 {
			return
		}
		if m, ok := t.merges[pair{symbols[at].id, symbols[symbols[at].next].id}]; ok {
			heap.Push(&queue, candidate{m, at})
		}
	}
	for i := range symbols {
		note(i)
	}
	for len(queue) > 0 {
		c := heap.Pop(&queue).(candidate)
		left := &symbols[c.at]
		if left.dead || left.next < 0 {
			continue
		}
		right := &symbols[left.next]
		if m, ok := t.merges[pair{left.id, right.id}]; !ok || m.id != c.id {
			continue // one of the two has been merged since
		}
		right.dead = true
		left.id, left.next = c.id, right.next
		if right.next >= 0 {
			symbols[right.next].prev = c.at
		}
		note(left.prev)
		note(c.at)
	}
	for at := 0; at >= 0; at = symbols[at].next {
		ids = append(ids, symbols[at].id)
	}
	return ids
}
