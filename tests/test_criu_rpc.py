"""CRIU's messages: the codec against bytes that protobuf's own documentation and library gave, and against itself."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cycontainer.criu.rpc import BOOLEAN, INTEGER, OPTIONS, REQUEST, RESPONSE, TEXT, Malformed, decode, encode

VECTORS = [  # a message, its bytes in hexadecimal as the official library writes them
    ({"type": 10}, "080a"),
    ({"type": 1, "opts": {"images_dir_fd": 7, "pid": 300}}, "08011205080710ac02"),
    ({"type": 6, "notify_success": True}, "08061801"),
    ({"type": 2, "opts": {"inherit_fd": [{"key": "pipe:[5]", "fd": 4}]}}, "0802120fda010c0a08706970653a5b355d1004"),
    ({"type": 1, "opts": {"external": ["mnt[/a]:b", "x"]}}, "08011210aa02096d6e745b2f615d3a62aa020178"),
    ({"type": 9, "features": {"mem_track": True, "lazy_pages": True}}, "08092a0408011001"),
    ({"opts": {"images_dir_fd": -1}}, "120b08ffffffffffffffffff01"),
    ({"opts": {"empty_ns": 0x40000000, "network_lock": 2}}, "120ab0028080808004800402"),
]


@pytest.mark.parametrize(("message", "expected"), VECTORS)
def test_a_request_has_the_bytes_of_the_official_library(message: dict[str, Any], expected: str) -> None:
    assert encode(message, REQUEST).hex() == expected
    assert decode(bytes.fromhex(expected), REQUEST) == message


def made(kind: Any, chance: random.Random, depth: int) -> Any:
    if kind == INTEGER:
        return chance.choice((0, 1, 127, 128, -1, 2**31 - 1, -(2**31), 2**40))
    if kind == BOOLEAN:
        return chance.random() < 0.5
    if kind == TEXT:
        return chance.choice(("", "a", "/é/\udcff", "x" * 300))
    if isinstance(kind, list):
        return [made(kind[0], chance, depth) for _ in range(chance.randrange(1, 4))]
    return {name: made(of, chance, depth + 1) for name, (_, of) in kind.items() if chance.random() < 0.5}


@pytest.mark.parametrize("schema", [OPTIONS, REQUEST, RESPONSE])
def test_what_is_encoded_is_decoded(schema: Any) -> None:
    chance = random.Random(1)
    for _ in range(200):
        message = made(schema, chance, 0)
        assert decode(encode(message, schema), schema) == message


def test_a_field_number_is_used_once() -> None:
    for schema in (OPTIONS, REQUEST, RESPONSE):
        numbers = [number for number, _ in schema.values()]
        assert len(set(numbers)) == len(numbers)


def test_fields_of_a_newer_criu_are_skipped() -> None:
    unknown = bytes.fromhex("f80701fd0701020304f907" + "00" * 8 + "fa0703616263")
    assert decode(unknown + bytes.fromhex("1001"), RESPONSE) == {"success": True}


def test_none_is_not_sent() -> None:
    assert encode({"type": 1, "opts": None}, REQUEST) == b"\x08\x01"


@pytest.mark.parametrize("data", ["08", "ff" * 11, "1205", "120a0801", "0b", "0a00", "2208"])
def test_bytes_that_are_no_message_are_told(data: str) -> None:
    with pytest.raises(Malformed):
        decode(bytes.fromhex(data), RESPONSE)


def test_random_bytes_give_a_message_or_malformed() -> None:
    chance = random.Random(2)
    for _ in range(2000):
        try:
            decode(chance.randbytes(chance.randrange(40)), RESPONSE)
        except Malformed:
            continue
