"""What the tests need to know of an ELF file: its machine and its program headers. Source: elf(5)."""

from __future__ import annotations

import struct

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
PT_GNU_STACK = 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4


def program_headers(path: str) -> list[tuple[int, int]]:
    """The type and flags of each program header of a 64-bit little-endian file."""
    data = contents(path)
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return [struct.unpack_from("<II", data, offset + index * size) for index in range(count)]


def machine(path: str) -> int:
    """The machine that a file is for: 62 is x86_64, 183 aarch64."""
    return int(struct.unpack_from("<H", contents(path), 18)[0])


def contents(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is no 64-bit little-endian ELF file")
    return data
