"""The few messages by which nftables' tables are made, listed and deleted. Lifecycle: it asks the kernel.

Source: netfilter's nfnetlink.h, nf_tables.h: what changes anything travels in a batch.
"""

from __future__ import annotations

import _socket
import os
from struct import Struct

from cycontainer.rtnetlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    opened_in,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

AF_NETLINK, NETLINK_NETFILTER = 16, 12
SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN = (SUBSYSTEM << 8 | kind for kind in range(4))
TABLE_NAME = 1  # NFTA_TABLE_NAME
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4 | 0x8000, 5, 7  # NFTA_CHAIN_*; a nested one
HOOK_NUMBER, HOOK_PRIORITY = 1, 2  # NFTA_HOOK_*
FAMILY_INET = 1  # NFPROTO_INET
HOOKS = (("input", 1), ("output", 3))  # NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT
DROP = 0  # NF_DROP
MOST_BYTES = 1 << 16

_HEADER = Struct("=IHHII")  # struct nlmsghdr
_GENERAL = Struct("=BBH")  # struct nfgenmsg: family, version, resource
_NUMBER = Struct(">I")


def _message(kind: int, flags: int, number: int, family: int, body: bytes = b"") -> bytes:
    resource = _socket.htons(SUBSYSTEM if kind in (BATCH_BEGIN, BATCH_END) else 0)
    data = _GENERAL.pack(family, 0, resource) + body
    return _HEADER.pack(_HEADER.size + len(data), kind, NLM_F_REQUEST | flags, number, 0) + data


def _dropping_chain(table: bytes, name: str, hook: int) -> bytes:
    place = attribute(HOOK_NUMBER, _NUMBER.pack(hook)) + attribute(HOOK_PRIORITY, _NUMBER.pack(0))
    return b"".join(
        [
            attribute(CHAIN_TABLE, table),
            attribute(CHAIN_NAME, name.encode() + b"\0"),
            attribute(CHAIN_HOOK, place),
            attribute(CHAIN_POLICY, _NUMBER.pack(DROP)),
            attribute(CHAIN_TYPE, b"filter\0"),
        ]
    )


class Netfilter:
    """A netfilter socket of the network namespace that it was opened in. It owns its descriptor; `with` closes it."""

    def __init__(self) -> None:
        self._socket = _socket.socket(AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_NETFILTER)

    def __enter__(self) -> Netfilter:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """Kinds and bodies, to the end of a list or an acknowledgement. Raises OSError: the kernel refused."""
        while True:
            data = self._socket.recv(MOST_BYTES)
            place = 0
            while place + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, place)
                body = data[place + _HEADER.size : place + length]
                code = -int.from_bytes(body[:4], "little", signed=True) if kind == NLMSG_ERROR else 0
                if code:
                    raise OSError(code, f"netfilter: {os.strerror(code)}")
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    return
                yield kind, body
                place += max(length + 3 & ~3, _HEADER.size)

    def tables(self) -> list[tuple[int, str]]:
        """Every table: its family and its name. Raises OSError."""
        self._socket.send(_message(GET_TABLE, NLM_F_DUMP, 1, 0))
        found = []
        for _, body in self._answers():
            name = attributes(body[_GENERAL.size :]).get(TABLE_NAME, b"").rstrip(b"\0").decode()
            found.append((body[0], name))
        return found

    def drop_all(self, name: str) -> None:
        """Make a table by which nothing comes in or goes out. Raises OSError."""
        table = name.encode() + b"\0"
        batch = _message(BATCH_BEGIN, 0, 1, 0)
        batch += _message(NEW_TABLE, NLM_F_CREATE, 2, FAMILY_INET, attribute(TABLE_NAME, table))
        for (chain, hook), flags in zip(HOOKS, (0, NLM_F_ACK)):  # errors are always told
            batch += _message(NEW_CHAIN, NLM_F_CREATE | flags, 3, FAMILY_INET, _dropping_chain(table, chain, hook))
        self._socket.send(batch + _message(BATCH_END, 0, 4, 0))
        list(self._answers())

    def delete_tables(self, prefix: str) -> None:
        """Delete the tables whose names begin so. Raises OSError."""
        for name in {name for _, name in self.tables() if name.startswith(prefix)}:
            self.delete_table(name)

    def delete_table(self, wanted: str) -> None:
        """Delete a table, where there is one of that name. Raises OSError."""
        for family, name in self.tables():
            if name != wanted:
                continue
            body = attribute(TABLE_NAME, name.encode() + b"\0")
            batch = _message(BATCH_BEGIN, 0, 1, 0)
            batch += _message(DELETE_TABLE, NLM_F_ACK, 2, family, body)
            self._socket.send(batch + _message(BATCH_END, 0, 3, 0))
            try:
                list(self._answers())
            except FileNotFoundError:
                continue  # it went by itself: ENOENT


def netfilter_in(namespace: int) -> Netfilter:
    """A socket that speaks for an open network namespace. Raises OSError."""
    return opened_in(namespace, Netfilter)
