"""A filter as a search tree says what it said before, and is short."""

from __future__ import annotations

import os
import random
import struct

import pytest
from test_seccomp import ERRNO, X86_64, allows, answer, rule

from cycontainer._seccomp import compile_filter
from cycontainer._seccomp_tree import as_tree

LOAD, JUMP, EQUAL, ABOVE, LEAST, MASK, RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
NUMBERS = (0, 1, 2, 5, 6, 7, 100, 101, 0x40000000, 0x40000001, 2**32 - 1)


def some_program(dice: random.Random, length: int) -> bytes:
    """Instructions of every kind that filters have, whose jumps only lead ahead. It begins with the number loaded."""
    made = []
    for left in range(length, 0, -1):
        kind = dice.choice((LOAD, JUMP, EQUAL, EQUAL, ABOVE, LEAST, LEAST, RETURN))
        if kind == LOAD:
            made.append((LOAD, 0, 0, dice.choice((0, 4, 16, 24))))
        elif kind == JUMP:
            made.append((JUMP, 0, 0, dice.randrange(min(left, 6))))
        elif kind == RETURN:
            made.append((RETURN, 0, 0, dice.randrange(4)))
        else:
            k = dice.choice((*NUMBERS, X86_64))
            made.append((kind, dice.randrange(min(left, 9)), dice.randrange(min(left, 9)), k))
    made.append((RETURN, 0, 0, 9))
    return b"".join(struct.pack("HBBI", *each) for each in made)


@pytest.mark.parametrize("seed", range(150))
def test_a_tree_says_what_the_program_says(seed: int) -> None:
    dice = random.Random(seed)
    program = some_program(dice, dice.randrange(1, 60))
    answers = {number: 50 + number % 7 for number in dice.sample(NUMBERS, dice.randrange(4))}
    tree = as_tree(program, X86_64, answers)
    assert tree is not None
    load = struct.pack("HBBI", LOAD, 0, 0, 0)
    for number in sorted({near % 2**32 for each in NUMBERS for near in (each - 1, each, each + 1)}):
        for args in ((0, 0), (5, 101), (X86_64, 7)):
            expected = answers.get(number, answer(load + program, X86_64, number, *args))
            assert answer(load + tree, X86_64, number, *args) == expected


def test_a_program_that_calculates_with_the_number_is_no_tree() -> None:
    program = b"".join(struct.pack("HBBI", *each) for each in ((MASK, 0, 0, 1), (EQUAL, 0, 1, 1), (RETURN, 0, 0, 1)))
    assert as_tree(program + struct.pack("HBBI", RETURN, 0, 0, 2), X86_64, {}) is None


def test_a_search_that_is_longer_than_a_condition_can_jump() -> None:
    answers = {number: number for number in range(0, 2000, 2)}
    tree = as_tree(struct.pack("HBBI", RETURN, 0, 0, 2**31), X86_64, answers)
    assert tree is not None
    load = struct.pack("HBBI", LOAD, 0, 0, 0)
    assert all(answer(load + tree, X86_64, n) == answers.get(n, 2**31) for n in (*range(100), 777, 1022, 1998, 5000))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")
def test_calls_that_are_answered_alike_share_a_leaf() -> None:
    """The first ten calls, in a row: one run, and what comes after the last."""
    names = "read write open close stat fstat lstat poll lseek mmap"
    program = compile_filter(allows(rule(names, "ALLOW"), default_errno=5), "x86_64")
    assert len(program) // 8 <= 12
    assert answer(program, X86_64, 9) == 0x7FFF0000
    assert answer(program, X86_64, 10) == ERRNO | 38
