"""CRIU's messages as bytes: as much of protobuf as they need, and their fields. It touches nothing.

`encode` and `decode` take and give dictionaries; a schema maps a field's name to its number and type. A type is INTEGER
(int32, uint32, enum, 64-bit), BOOLEAN, TEXT, a schema (a message), or a list of one of these (repeated). Importing
`protobuf` with its generated module takes 28 ms and a matching compiled library; this a fraction of one.
Sources: protobuf's "Encoding"; criu's images/rpc.proto, whose field numbers never change.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    Kind = str | Mapping[str, Any]
    Schema = Mapping[str, tuple[int, Kind | list[Any]]]

INTEGER: Final = "integer"
BOOLEAN: Final = "boolean"
TEXT: Final = "text"
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT: Final = 10

REQUESTS: Final = {  # criu_req_type
    "DUMP": 1,
    "RESTORE": 2,
    "NOTIFY": 6,
    "FEATURE_CHECK": 9,
    "VERSION": 10,
    "SINGLE_PRE_DUMP": 13,
}
CGROUP_MODES: Final = {"ignore": 0, "soft": 3, "full": 4, "strict": 5}
NETWORK_LOCKS: Final = {"iptables": 1, "nftables": 2, "skip": 3}

_MOUNT = {"key": (1, TEXT), "val": (2, TEXT)}
_CGROUP_ROOT = {"ctrl": (1, TEXT), "path": (2, TEXT)}
_INHERITED = {"key": (1, TEXT), "fd": (2, INTEGER)}
_NAMESPACE = {"ns": (1, TEXT), "ns_file": (2, TEXT)}
_PAGE_SERVER = {"address": (1, TEXT), "port": (2, INTEGER), "pid": (3, INTEGER), "fd": (4, INTEGER)}
_FEATURES = {"mem_track": (1, BOOLEAN), "lazy_pages": (2, BOOLEAN), "pidfd_store": (3, BOOLEAN)}
OPTIONS: Final[Schema] = {
    "images_dir_fd": (1, INTEGER),
    "pid": (2, INTEGER),
    "leave_running": (3, BOOLEAN),
    "ext_unix_sk": (4, BOOLEAN),
    "tcp_established": (5, BOOLEAN),
    "evasive_devices": (6, BOOLEAN),
    "shell_job": (7, BOOLEAN),
    "file_locks": (8, BOOLEAN),
    "log_level": (9, INTEGER),
    "log_file": (10, TEXT),
    "ps": (11, _PAGE_SERVER),
    "notify_scripts": (12, BOOLEAN),
    "root": (13, TEXT),
    "parent_img": (14, TEXT),
    "track_mem": (15, BOOLEAN),
    "auto_dedup": (16, BOOLEAN),
    "work_dir_fd": (17, INTEGER),
    "link_remap": (18, BOOLEAN),
    "ext_mnt": (23, [_MOUNT]),
    "manage_cgroups": (24, BOOLEAN),
    "cg_root": (25, [_CGROUP_ROOT]),
    "rst_sibling": (26, BOOLEAN),
    "inherit_fd": (27, [_INHERITED]),
    "manage_cgroups_mode": (34, INTEGER),
    "external": (37, [TEXT]),
    "empty_ns": (38, INTEGER),
    "join_ns": (39, [_NAMESPACE]),
    "freeze_cgroup": (44, TEXT),
    "timeout": (45, INTEGER),
    "tcp_skip_in_flight": (46, BOOLEAN),
    "lazy_pages": (48, BOOLEAN),
    "orphan_pts_master": (50, BOOLEAN),
    "config_file": (51, TEXT),
    "tcp_close": (52, BOOLEAN),
    "lsm_profile": (53, TEXT),
    "lsm_mount_context": (63, TEXT),
    "network_lock": (64, INTEGER),
}
REQUEST: Final[Schema] = {
    "type": (1, INTEGER),
    "opts": (2, OPTIONS),
    "notify_success": (3, BOOLEAN),
    "keep_open": (4, BOOLEAN),
    "features": (5, _FEATURES),
    "pid": (6, INTEGER),
}
_VERSION = {
    "major": (1, INTEGER),
    "minor": (2, INTEGER),
    "gitid": (3, TEXT),
    "sublevel": (4, INTEGER),
    "extra": (5, INTEGER),
    "name": (6, TEXT),
}
RESPONSE: Final[Schema] = {
    "type": (1, INTEGER),
    "success": (2, BOOLEAN),
    "dump": (3, {"restored": (1, BOOLEAN)}),
    "restore": (4, {"pid": (1, INTEGER)}),
    "notify": (5, {"script": (1, TEXT), "pid": (2, INTEGER)}),
    "ps": (6, _PAGE_SERVER),
    "cr_errno": (7, INTEGER),
    "features": (8, _FEATURES),
    "cr_errmsg": (9, TEXT),
    "version": (10, _VERSION),
    "status": (11, INTEGER),
}


class Malformed(ValueError):
    """Bytes that are no message."""


# --- encoding


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # a negative int32 travels as ten bytes
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, kind: Any, value: Any) -> bytes:
    if kind in (INTEGER, BOOLEAN):
        return _varint(number << 3 | VARINT) + _varint(int(value))
    data = os.fsencode(value) if kind == TEXT else encode(value, kind)
    return _varint(number << 3 | DELIMITED) + _varint(len(data)) + data


def encode(message: Mapping[str, Any], schema: Schema) -> bytes:
    """The message's bytes, in the order of its fields; one that is None is left out. Raises KeyError: no such field."""
    out = b""
    for name, value in message.items():
        number, kind = schema[name]
        if value is None:
            continue
        if isinstance(kind, list):
            out += b"".join([_field(number, kind[0], each) for each in value])
        else:
            out += _field(number, kind, value)
    return out


# --- decoding


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where what follows it begins."""
    number = 0
    for place in range(LONGEST_VARINT):
        if at >= len(data):
            raise Malformed("it ends within a number")
        byte = data[at]
        at += 1
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number & (1 << 64) - 1, at
    raise Malformed("a number of more than ten bytes")


def _raw(data: bytes, at: int, wire: int) -> tuple[int | bytes, int]:
    """A field's value as it travels, and where the next field begins."""
    if wire == VARINT:
        return _read_varint(data, at)
    if wire == DELIMITED:
        size, at = _read_varint(data, at)
    elif wire in (FIXED64, FIXED32):
        size = 8 if wire == FIXED64 else 4
    else:
        raise Malformed(f"wire type {wire}")
    if at + size > len(data):
        raise Malformed("it ends within a field")
    return data[at : at + size], at + size


def _value(raw: int | bytes, kind: Any) -> Any:
    if isinstance(raw, int):
        if kind == BOOLEAN:
            return bool(raw)
        if kind == INTEGER:
            return raw - (1 << 64) if raw >> 63 else raw
    elif kind == TEXT:
        return os.fsdecode(raw)
    elif not isinstance(kind, str):
        return decode(raw, kind)
    raise Malformed("a field of another type")


def decode(data: bytes, schema: Schema) -> dict[str, Any]:
    """The message that bytes hold; fields that the schema lacks, of a newer criu, are skipped.

    Raises:
        Malformed: they hold none.
    """
    names = {number: (name, kind) for name, (number, kind) in schema.items()}
    message: dict[str, Any] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        raw, at = _raw(data, at, key & 7)
        if key >> 3 not in names:
            continue
        name, kind = names[key >> 3]
        if isinstance(kind, list):
            message.setdefault(name, []).append(_value(raw, kind[0]))
        else:
            message[name] = _value(raw, kind)
    return message
