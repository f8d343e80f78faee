"""What libseccomp would not say as it is meant: calls with several rules, and i386's calls that stand for many. Hot.

It touches nothing. A program is an array of struct sock_filter; one that is made here is gone past, or returns.
"""

from cycontainer import tables

from libc.stdint cimport int32_t, uint32_t
from cycontainer._seccomp cimport (ARGUMENTS_AT, JUMP, JUMP_IF_ABOVE, JUMP_IF_EQUAL, JUMP_IF_LEAST, LOAD, MASK,
                                   NUMBER_AT, RETURN, Instruction, jump)

cdef enum:                        # where a test of an argument leads: on, or over the rest of its condition or its rule
    NEXT, PASS, FAIL

# An operator's tests of the argument's high half, and of its low half: the test, where to go when it is true, and else.
cdef tuple SAME = ((JUMP_IF_EQUAL, NEXT, FAIL),)
cdef tuple MORE = ((JUMP_IF_ABOVE, PASS, NEXT), (JUMP_IF_EQUAL, NEXT, FAIL))
cdef tuple LESS = ((JUMP_IF_ABOVE, FAIL, NEXT), (JUMP_IF_EQUAL, NEXT, PASS))
cdef dict TESTS = {
    "SCMP_CMP_EQ": (SAME, SAME), "SCMP_CMP_MASKED_EQ": (SAME, SAME),
    "SCMP_CMP_NE": (((JUMP_IF_EQUAL, NEXT, PASS),), ((JUMP_IF_EQUAL, FAIL, NEXT),)),
    "SCMP_CMP_GT": (MORE, ((JUMP_IF_ABOVE, NEXT, FAIL),)), "SCMP_CMP_GE": (MORE, ((JUMP_IF_LEAST, NEXT, FAIL),)),
    "SCMP_CMP_LT": (LESS, ((JUMP_IF_LEAST, FAIL, NEXT),)), "SCMP_CMP_LE": (LESS, ((JUMP_IF_ABOVE, FAIL, NEXT),)),
}


def alternatives(bint wide, int number, uint32_t default, list rules not None) -> bytes:
    """One call's rules: the answer of those whose conditions hold, else the default.

    Args:
        wide: whether a call's arguments have 64 bits there, or 32.
        number: the call's.
        default: what is returned where no rule holds.
        rules: a list (action, conditions).
    """
    made = b""
    for action, conditions in rules:
        rest = jump(RETURN, action, 0, 0)
        for condition in reversed(conditions):      # a failed one jumps over all that follows of its rule
            rest = _condition(wide, condition, len(rest) // sizeof(Instruction)) + rest
        made += rest
    made += jump(RETURN, default, 0, 0)
    skip = jump(JUMP_IF_EQUAL, number, 1, 0) + jump(JUMP, len(made) // sizeof(Instruction), 0, 0)
    return skip + made


cdef bytes _condition(bint wide, condition, int rest):
    """Compare an argument: go on where that holds, else jump over `rest` more. 32 bits at once is all that BPF can."""
    masked = condition.op == "SCMP_CMP_MASKED_EQ"
    mask, value = (condition.value, condition.value_two) if masked else (2**64 - 1, condition.value)
    high, low = TESTS[condition.op]
    steps = []
    for shift, tests in ((32, high), (0, low)):
        if shift == 0 or wide:
            steps.append((LOAD, ARGUMENTS_AT + 8 * condition.position + shift // 8, NEXT, NEXT))
            steps += [(MASK, mask >> shift & 0xFFFFFFFF, NEXT, NEXT)] if masked else []
            steps += [(code, value >> shift & 0xFFFFFFFF, true, false) for code, true, false in tests]
    made = b""
    for place, (code, k, true, false) in enumerate(steps, 1):
        left = len(steps) - place
        distance = {NEXT: 0, PASS: left, FAIL: left + rest}
        made += jump(code, k, distance[true], distance[false])
    return made


def hidden_calls(uint32_t default, dict rules not None) -> bytes:
    """Judge i386's multiplexers. libseccomp knows of them, but leaves conditions out, which cannot be seen there.

    A call is answered through its multiplexer as it is by itself; where that has conditions, by the strictest of what
    comes of them: "socket, but not AF_VSOCK" would allow all sockets to `socketcall`. A profile that names the
    multiplexer has decided for it, and is obeyed; but what it refuses by a call's own name, whatever the arguments, is
    refused here, too.

    Args:
        default: what is returned for a call without rules.
        rules: by the name of each call that the profile has, a list (action, conditions); empty when it does as the
            default.
    """
    made = b""
    for multiplexer, number, calls in tables.MULTIPLEXERS:
        answers = _answers(multiplexer, calls, default, rules)
        if not answers:
            continue
        judged = b"".join([
            jump(JUMP_IF_EQUAL, calls[name], 0, 1) + jump(RETURN, action, 0, 0) for name, action in answers.items()
        ])
        restore = jump(LOAD, NUMBER_AT, 0, 0)
        which = jump(LOAD, ARGUMENTS_AT, 0, 0)                    # the low half: i386 has no other
        if multiplexer == "ipc":
            which += jump(MASK, 0xFFFF, 0, 0)                     # a version is above it, and any goes: ipc/syscall.c
        judge = which + judged + restore
        made += jump(JUMP_IF_EQUAL, number, 0, len(judge) // sizeof(Instruction)) + judge
    return made


cdef dict _answers(str multiplexer, dict calls, uint32_t default, dict rules):
    """What is done for calls through their multiplexer, where that is not what is done for the multiplexer itself."""
    own = rules.get(multiplexer, ())
    if len(own) > 1 or any([conditions for _, conditions in own]):
        return {}                 # it looks at the argument itself
    itself = own[0][0] if own else default
    found = {}
    for name in calls:
        each = rules.get(name)
        conditional = any([conditions for _, conditions in each or ()])
        if each is None or (conditional and own) or not (each or own):
            continue
        actions = {action for action, _ in each}
        if conditional or not each:
            actions.add(default)
        if multiplexer in rules:
            actions.add(itself)
        found[name] = min(actions, key=_strictness)
    return {name: action for name, action in found.items() if action != itself or not own}


def _strictness(action: int) -> int:
    """The kernel's order: as a signed number, the lower is the stricter. seccomp(2), "Filters"."""
    return <int32_t> <uint32_t> action
