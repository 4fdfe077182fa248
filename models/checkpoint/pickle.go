package checkpoint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The values of a pickle are nil (None), bool, int, *big.Int (a long that was
// written in more than 8 bytes), float64, string, *pyBytes, the three containers
// below, and what classes and functions yield: *rebuilt (a tensor not yet
// located), *storage, *pyObject and numpy's (persistence.go), and *opaque for all
// that is not obeyed.
type (
	pyTuple []any
	pyList  struct{ items []any } // a list, set or frozenset
	pyDict  struct {
		entries []dictEntry // in order; a key may be there twice
		class   bool        // made by a class, such as OrderedDict: it has attributes, which are dropped
	}
	dictEntry struct{ key, value any }
)

// A pyGlobal is a class or function that a pickle may call (see lookup).
type pyGlobal struct {
	name    string // with its module
	call    func(u *unpickler, args []any) (any, error)
	isClass bool // it can be called by NEWOBJ, cls.__new__(cls, *args), too
}

// opaque stands for a class or function that is neither constructed nor
// called, and for what constructing or calling it would have yielded.
type opaque struct{ name string }

type globalName struct{ module, name string }

// extension stands for the module of what Python's copyreg knows by a number.
const extension = "copyreg extension "

// An unpickler is a stack machine that reads the pickles of one file, of
// protocols 0 to 5 (CPython, Lib/pickle.py). It executes nothing: names become
// the few constructors that lookup knows, or else *opaque or an error.
//
// No input makes it panic: an argument is known to lie within the data before
// it is used, and memory is reserved in the budget before it is allocated.
type unpickler struct {
	b *budget
	// persistent answers a persistent id, a tuple such as
	// ("storage", class, key, location, numel); nil: there are none.
	persistent func(id pyTuple) (any, error)
	names      func(module, name string) (any, error) // what a name stands for; nil: lookup
	globals    map[globalName]any                     // what names answered

	// The state of reading one pickle.
	data     []byte
	pos      int
	frameEnd int // where the current frame ends; arguments may not reach across
	stack    []any
	marks    []int // how many values lay on the stack at each MARK
	memo     map[int]any
	err      error // what execute found at fault
}

// load reads the pickle at the start of data and says how many bytes it has.
func (u *unpickler) load(data []byte) (v any, n int, err error) {
	u.data, u.pos, u.frameEnd, u.err = data, 0, 0, nil
	u.stack, u.marks, u.memo = nil, nil, map[int]any{}
	if u.globals == nil {
		u.globals = map[globalName]any{}
	}
	if u.names == nil {
		u.names = lookup
	}
	for {
		at := u.pos
		op, arg, err := u.next()
		if err != nil {
			return nil, 0, fmt.Errorf("pickle: opcode 0x%02x at byte %d: %w", op, at, err)
		}
		if op == stop {
			v = u.top()
		} else {
			u.execute(op, arg)
		}
		if u.err != nil {
			return nil, 0, fmt.Errorf("broken pickle: %s", shorten(u.err.Error()))
		}
		if op == stop {
			return v, u.pos, nil
		}
	}
}

// check notes the first fault; load returns it after the opcode.
func (u *unpickler) check(err error) {
	if u.err == nil {
		u.err = err
	}
}

func (u *unpickler) fail(format string, args ...any) { u.check(fmt.Errorf(format, args...)) }

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

// pop takes the topmost n values above the last mark off the stack. They are
// valid until the next push; without so many, they are nil.
func (u *unpickler) pop(n int) []any {
	base := 0
	if len(u.marks) > 0 {
		base = u.marks[len(u.marks)-1]
	}
	at := len(u.stack) - n
	if at < base {
		u.fail("the stack is empty")
		return make([]any, n)
	}
	values := u.stack[at:]
	u.stack = u.stack[:at]
	return values
}

// popMark takes the last mark and what lies above it off the stack, likewise.
func (u *unpickler) popMark() []any {
	last := len(u.marks) - 1
	if last < 0 {
		u.fail("there is no mark on the stack")
		return nil
	}
	at := u.marks[last]
	u.marks = u.marks[:last]
	return u.pop(len(u.stack) - at)
}

// top is the value on top of the stack, which stays there.
func (u *unpickler) top() any {
	v := u.pop(1)[0]
	u.push(v)
	return v
}

// execute obeys an opcode other than STOP. Here are those that move values and
// make containers; construct and literal have the rest.
func (u *unpickler) execute(op byte, arg []byte) {
	switch op {
	case 0x80: // PROTO
		if arg[0] > 5 {
			u.fail("unsupported pickle protocol: %d", arg[0])
		}
	case frame, 0x98: // READONLY_BUFFER
	case 0x97: // NEXT_BUFFER
		u.fail("the pickle refers to data outside of it")
	case mark:
		u.marks = append(u.marks, len(u.stack))
	case '0': // POP
		if n := len(u.marks); n > 0 && u.marks[n-1] == len(u.stack) {
			u.popMark()
		} else {
			u.pop(1)
		}
	case '1': // POP_MARK
		u.popMark()
	case '2': // DUP
		u.push(u.top())
	case 'g', 'h', 'j': // GET, BINGET, LONG_BINGET
		i := u.memoIndex(op, arg)
		v, ok := u.memo[i]
		if !ok {
			u.fail("the memo has no entry %d", i)
		}
		u.push(v)
	case 'p', 'q', 'r': // PUT, BINPUT, LONG_BINPUT
		u.memo[u.memoIndex(op, arg)] = u.top()
	case 0x94: // MEMOIZE
		u.memo[len(u.memo)] = u.top()
	case ')': // EMPTY_TUPLE
		u.push(pyTuple{})
	case 't': // TUPLE
		u.push(pyTuple(slices.Clone(u.popMark())))
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		u.push(pyTuple(slices.Clone(u.pop(int(op - 0x84)))))
	case ']', 0x8f: // EMPTY_LIST, EMPTY_SET
		u.push(&pyList{})
	case 'l', 0x91: // LIST, FROZENSET
		u.push(&pyList{slices.Clone(u.popMark())})
	case 'a': // APPEND
		u.extend(u.pop(1))
	case 'e', 0x90: // APPENDS, ADDITEMS
		u.extend(u.popMark())
	case '}': // EMPTY_DICT
		u.push(&pyDict{})
	case 'd': // DICT
		d := &pyDict{}
		u.set(d, u.popMark())
		u.push(d)
	case 's': // SETITEM
		u.setItems(u.pop(2))
	case 'u': // SETITEMS
		u.setItems(u.popMark())
	case 'c', 'i', 'o', 'R', 'b', 'P', 'Q', 0x81, 0x82, 0x83, 0x84, 0x92, 0x93:
		u.construct(op, arg)
	case 'B', 'C', 0x8e, 0x96: // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
		u.push(&pyBytes{u.pos - len(arg), arg})
	default:
		u.answer(literal(op, arg))
	}
}

// answer pushes v, which is right where err is nil.
func (u *unpickler) answer(v any, err error) {
	u.check(err)
	u.push(v)
}

// memoIndex is the argument of an opcode that reads or writes the memo.
func (u *unpickler) memoIndex(op byte, arg []byte) int {
	if op != 'g' && op != 'p' {
		return int(unsigned(arg))
	}
	i, err := strconv.Atoi(line(arg))
	u.check(err)
	if i < 0 {
		u.fail("a negative index of the memo")
	}
	return i
}

// extend appends values to the list on top of the stack. An object that is no
// container swallows them.
func (u *unpickler) extend(values []any) {
	v := u.top()
	if l, ok := v.(*pyList); ok {
		l.items = append(l.items, values...)
	} else if !isObject(v) {
		u.fail("an element is appended to %s", describe(v))
	}
}

// setItems adds values to the dict on top of the stack, likewise.
func (u *unpickler) setItems(values []any) {
	v := u.top()
	d, ok := v.(*pyDict)
	if !ok && !isObject(v) {
		u.fail("an item of %s is set", describe(v))
	}
	if !ok {
		d = &pyDict{}
	}
	u.set(d, values)
}

// set adds key, value, key, value, … to d.
func (u *unpickler) set(d *pyDict, values []any) {
	if len(values)%2 != 0 {
		u.fail("a key without a value")
		return
	}
	for i := 0; i < len(values); i += 2 {
		d.entries = append(d.entries, dictEntry{values[i], values[i+1]})
	}
}

// isObject: v is what a class or function is or yields, but no container. A
// pickle may give it a state, append to it or set its items, to no effect.
func isObject(v any) bool {
	switch v.(type) {
	case *opaque, *pyGlobal, *storageClass, *storage, *rebuilt:
		return true
	}
	return false
}

// construct obeys the opcodes that name a class or function, or call it.
func (u *unpickler) construct(op byte, arg []byte) {
	switch op {
	case 'c': // GLOBAL
		module, name, _ := strings.Cut(line(arg), "\n")
		u.push(u.global(module, name))
	case 0x93: // STACK_GLOBAL
		names := u.pop(2)
		module, ok1 := names[0].(string)
		name, ok2 := names[1].(string)
		if !ok1 || !ok2 {
			u.fail("a class named by %s and %s", describe(names[0]), describe(names[1]))
		}
		u.push(u.global(module, name))
	case 0x82, 0x83, 0x84: // EXT1, EXT2, EXT4
		u.push(u.global(extension, fmt.Sprint(unsigned(arg))))
	case 'i': // INST
		args := slices.Clone(u.popMark())
		module, name, _ := strings.Cut(line(arg), "\n")
		u.push(u.call(u.global(module, name), args))
	case 'o': // OBJ
		values := slices.Clone(u.popMark())
		if len(values) == 0 {
			u.fail("OBJ without a class")
			return
		}
		u.push(u.call(values[0], values[1:]))
	case 'R', 0x81, 0x92: // REDUCE, NEWOBJ, NEWOBJ_EX
		if op == 0x92 {
			u.pop(1) // keyword arguments
		}
		values := u.pop(2)
		f, args := values[0], values[1]
		tuple, ok := args.(pyTuple)
		if !ok {
			u.fail("a call with %s where a tuple is expected", describe(args))
		}
		if g, ok := f.(*pyGlobal); ok && op != 'R' && !g.isClass {
			u.fail("%s is no class", g.name)
		}
		u.push(u.call(f, tuple))
	case 'b': // BUILD: the state of most objects is dropped
		state := u.pop(1)[0]
		v := u.top()
		done, err := u.setState(v, state)
		u.check(err)
		if d, ok := v.(*pyDict); !done && !isObject(v) && !(ok && d.class) {
			u.fail("a state is given to %s", describe(v))
		}
	case 'P': // PERSID
		u.answer(u.persistentLoad(line(arg)))
	case 'Q': // BINPERSID
		u.answer(u.persistentLoad(u.pop(1)[0]))
	}
}

// global is the class or function that the pickle names.
func (u *unpickler) global(module, name string) any {
	key, size := globalName{module, name}, len(module)+len(name)
	err := checkDigits(size) // of STACK_GLOBAL, which can name long strings again and again
	if err == nil && u.globals[key] == nil {
		if err = u.b.take(256+2*int64(size), "the pickle"); err == nil {
			u.globals[key], err = u.names(module, name)
		}
	}
	u.check(err)
	return u.globals[key]
}

// opaqueNames are the classes and functions that were met and not obeyed.
func (u *unpickler) opaqueNames() []string {
	var names []string
	for _, v := range u.globals {
		if o, ok := v.(*opaque); ok {
			names = append(names, o.name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// call is what calling f yields.
func (u *unpickler) call(f any, args []any) any {
	switch f := f.(type) {
	case *opaque:
		return f
	case *pyGlobal:
		v, err := f.call(u, args)
		u.check(err)
		return v
	}
	u.fail("%s is called, which is neither a class nor a function", describe(f))
	return nil
}

func (u *unpickler) persistentLoad(id any) (any, error) {
	t, ok := id.(pyTuple)
	if !ok || u.persistent == nil || len(t) == 0 {
		return nil, fmt.Errorf("a persistent id that is no storage: %s", describe(id))
	}
	if t[0] == "module" && len(t) > 1 {
		return t[1], nil // the class of a pickled nn.Module, with its source
	}
	return u.persistent(t)
}

// items are the elements of a list or tuple; false for anything else.
func items(v any) ([]any, bool) {
	switch v := v.(type) {
	case *pyList:
		return v.items, true
	case pyTuple:
		return v, true
	}
	return nil, false
}

// entries are the pairs of a dict, in order; false for anything else.
func entries(v any) ([]dictEntry, bool) {
	if d, ok := v.(*pyDict); ok {
		return d.entries, true
	}
	return nil, false
}

// describe names an unpickled value for a message: its kind, never its
// content.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool, int, float64:
		return fmt.Sprint(v)
	case string:
		return fmt.Sprintf("string %q", shorten(v))
	case *pyList:
		return fmt.Sprintf("list of %d", len(v.items))
	case pyTuple:
		return fmt.Sprintf("tuple of %d", len(v))
	case *pyDict:
		return fmt.Sprintf("dict of %d", len(v.entries))
	case *opaque:
		return shorten(v.name)
	case *pyGlobal:
		return shorten(v.name)
	case *rebuilt:
		return "tensor"
	case *pyObject:
		return "module of class " + shorten(v.class)
	case *pyBytes:
		return fmt.Sprintf("bytes object of %d", len(v.data))
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", v), "*")
}
