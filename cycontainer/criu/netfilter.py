"""The few messages by which nftables' tables are listed and deleted. Lifecycle: it asks the kernel.

Source: netfilter's nfnetlink.h, nf_tables.h: what changes anything travels in a batch.
"""

from __future__ import annotations

import _socket
import os
from struct import Struct

from cycontainer.rtnetlink import (
    NLM_F_ACK,
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
GET_TABLE, DELETE_TABLE = SUBSYSTEM << 8 | 1, SUBSYSTEM << 8 | 2
TABLE_NAME = 1  # NFTA_TABLE_NAME
MOST_BYTES = 1 << 16

_HEADER = Struct("=IHHII")  # struct nlmsghdr
_GENERAL = Struct("=BBH")  # struct nfgenmsg: family, version, resource


def _message(kind: int, flags: int, number: int, family: int, body: bytes = b"") -> bytes:
    resource = _socket.htons(SUBSYSTEM if kind in (BATCH_BEGIN, BATCH_END) else 0)
    data = _GENERAL.pack(family, 0, resource) + body
    return _HEADER.pack(_HEADER.size + len(data), kind, NLM_F_REQUEST | flags, number, 0) + data


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

    def delete_tables(self, prefix: str) -> None:
        """Delete the tables whose names begin so. Raises OSError."""
        for family, name in self.tables():
            if not name.startswith(prefix):
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
