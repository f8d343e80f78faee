"""Search trees: a filter's program for one architecture, made shorter, that says the same. Hot; it touches nothing.

The kernel follows a program for every number of a call when it is loaded, and copies and translates it whole; so both
its length and its depth are paid by each container (430 instructions: 0.13 ms; 100: 0.05). libseccomp makes a leaf for
each call. Here a leaf stands for a run of calls that are answered alike.

What a program answers depends on the call's number alone until it loads something else. So it is followed, once for
each number that it compares with and the one behind: between two of these nothing can change. Where it comes to load
an argument, a leaf of the tree jumps to that part of the program, which is kept.
"""

from libc.stdint cimport uint32_t

from cycontainer._seccomp cimport (ARCHITECTURE_AT, JUMP, JUMP_IF_ABOVE, JUMP_IF_EQUAL, JUMP_IF_LEAST, LOAD,
                                   NUMBER_AT, RETURN, Instruction, jump)

cdef enum:
    LONGEST_JUMP = 255            # of a condition: 8 bits

cdef long PART = <long> 1 << 40   # marks an outcome that is not an answer, but the place of a part that looks further


def as_tree(bytes program not None, uint32_t architecture, dict answers not None):
    """A program that begins with a call's number loaded, as a search tree; `answers` go before what it says itself.

    Args:
        program: an array of struct sock_filter.
        architecture: what it would find as that.
        answers: {number: what is returned for it}.

    Returns:
        The tree; None where the program does more with a number than compare it.
    """
    cdef const Instruction *code = <const Instruction *> <const char *> program
    cdef long count = len(program) // <long> sizeof(Instruction), at
    cdef list starts = [], outcomes = []
    cdef set points = {0}
    previous = None
    for at in range(count):
        if code[at].code in (JUMP_IF_EQUAL, JUMP_IF_ABOVE, JUMP_IF_LEAST):
            points.update((code[at].k, <long> code[at].k + 1))
    for number in answers:
        points.update((number, number + 1))
    for point in sorted(points):
        if point >= 1 << 32:
            break
        outcome = answers.get(point)
        if outcome is None:
            outcome = _follow(code, count, architecture, point)
        if outcome < 0:
            return None
        if outcome != previous:
            previous = outcome
            starts.append(point)
            outcomes.append(outcome)
    return _assembled(code, count, starts, outcomes)


cdef long _follow(const Instruction *code, long count, uint32_t architecture, uint32_t number):
    """What the program returns for a number; or PART and the place where it looks at more; or -1: it cannot be told."""
    cdef uint32_t held = number
    cdef long at = 0
    cdef bint holds
    while at < count:
        if code[at].code == RETURN:
            return code[at].k
        if code[at].code == LOAD:
            if code[at].k != NUMBER_AT and code[at].k != ARCHITECTURE_AT:
                return PART + at
            held = number if code[at].k == NUMBER_AT else architecture
            at += 1
        elif code[at].code == JUMP:
            at += 1 + <long> code[at].k
        else:
            if code[at].code == JUMP_IF_EQUAL:
                holds = held == code[at].k
            elif code[at].code == JUMP_IF_ABOVE:
                holds = held > code[at].k
            elif code[at].code == JUMP_IF_LEAST:
                holds = held >= code[at].k
            else:
                return -1
            at += 1 + (code[at].jt if holds else code[at].jf)
    return -1


cdef bytes _assembled(const Instruction *code, long count, list starts, list outcomes):
    """The tree, and behind it the parts that its leaves jump to."""
    cdef list tree = []
    cdef dict places = {}
    cdef long at, size
    _branch(tree, starts, outcomes, 0, len(starts) - 1)
    size = len(tree)
    kept = _reachable(code, count, {outcome - PART for outcome in outcomes if outcome >= PART})
    for at in kept:
        places[at] = size + len(places)
    for at in range(size):
        if isinstance(tree[at], int):
            tree[at] = jump(JUMP, places[tree[at] - PART] - at - 1, 0, 0)
    for at in kept:
        tree.append(_moved(code, at, places))
    return b"".join(tree)


cdef int _branch(list tree, list starts, list outcomes, long first, long last) except -1:
    """Append the search among the runs from `first` to `last`; a leaf that is a part stays its number for now."""
    cdef list left = []
    cdef long middle = (first + last + 1) // 2
    if first == last:
        tree.append(jump(RETURN, outcomes[first], 0, 0) if outcomes[first] < PART else outcomes[first])
        return 0
    _branch(left, starts, outcomes, first, middle - 1)
    if len(left) <= LONGEST_JUMP:
        tree.append(jump(JUMP_IF_LEAST, starts[middle], len(left), 0))
    else:
        tree.append(jump(JUMP_IF_LEAST, starts[middle], 0, 1))
        tree.append(jump(JUMP, len(left), 0, 0))
    tree += left
    return _branch(tree, starts, outcomes, middle, last)


cdef list _reachable(const Instruction *code, long count, set wanted):
    """The places that can be reached from those wanted, in order: a jump only leads ahead."""
    cdef long at
    cdef list found = []
    for at in range(count):
        if at not in wanted:
            continue
        found.append(at)
        if code[at].code == JUMP:
            wanted.add(at + 1 + <long> code[at].k)
        elif code[at].code in (JUMP_IF_EQUAL, JUMP_IF_ABOVE, JUMP_IF_LEAST):
            wanted.update((at + 1 + code[at].jt, at + 1 + code[at].jf))
        elif code[at].code != RETURN:
            wanted.add(at + 1)
    return found


cdef bytes _moved(const Instruction *code, long at, dict places):
    """An instruction of a part, at its new place: what is left out between makes jumps shorter, never longer."""
    cdef long here = places[at] + 1
    if code[at].code == JUMP:
        return jump(JUMP, places[at + 1 + <long> code[at].k] - here, 0, 0)
    if code[at].code in (JUMP_IF_EQUAL, JUMP_IF_ABOVE, JUMP_IF_LEAST):
        return jump(code[at].code, code[at].k,
                    places[at + 1 + code[at].jt] - here, places[at + 1 + code[at].jf] - here)
    return (<const char *> &code[at])[:sizeof(Instruction)]
