"""The few messages of rtnetlink(7) by which network devices are found, moved, addressed. Lifecycle: it asks the kernel.

A socket speaks for the network namespace that it was opened in, from wherever it is used.
"""

from __future__ import annotations

import _socket
import _thread
import errno
import os
from struct import Struct

from cycontainer._nsenter import join
from cycontainer.record import Record
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final, TypeVar

    Opened = TypeVar("Opened")

AF_NETLINK, SOL_NETLINK, NETLINK_EXT_ACK = 16, 270, 11
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x1, 0x4, 0x10, 0x100, 0x200
NLM_F_DUMP, NLM_F_REPLACE, NLM_F_CREATE = 0x300, 0x100, 0x400
NLMSGERR_ATTR_MSG = 1
RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 19, 20, 22
IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28
IFA_FLAGS = 8
IFF_UP = 1
MOST_BYTES: Final = 1 << 16  # a dump's packet is half of that at most
MOST_TRIES: Final = 10  # of a dump that the kernel says was interrupted by a change

_HEADER: Final = Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE: Final = Struct("=HH")  # struct nlattr
_LINK: Final = Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS: Final = Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_NUMBER: Final = Struct("=I")


class NetlinkError(OSError):
    """The kernel refused; `strerror` is its own text where it has one."""


class Link(Record):
    """A network device."""

    number: int  # its index
    flags: int  # IFF_*


class Address(Record):
    """An address of a device.

    Attributes:
        attributes: IFA_*: as the kernel has them, the flags left out.
    """

    family: int
    prefix_length: int
    flags: int  # IFA_F_*
    scope: int  # RT_SCOPE_*
    attributes: dict[int, bytes]


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) & 3)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, aligned."""
    return _padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message."""
    found: dict[int, bytes] = {}
    place = 0
    while place + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[place + _ATTRIBUTE.size : place + length]  # less NLA_F_NESTED, _NET_BYTEORDER
        place += length + 3 & ~3
    return found


def _refusal(body: bytes, flags: int) -> NetlinkError | None:
    """What an NLMSG_ERROR says; None when that is "done"."""
    code = -int.from_bytes(body[:4], "little", signed=True)
    if code == 0:
        return None
    text = os.strerror(code)
    if flags & NLM_F_ACK_TLVS:
        length = _HEADER.size if flags & NLM_F_CAPPED else int.from_bytes(body[4:8], "little")
        said = attributes(body[4 + (length + 3 & ~3) :]).get(NLMSGERR_ATTR_MSG)
        text = f"{text}: {said.rstrip(bytes(1)).decode('utf-8', 'replace')}" if said else text
    return NetlinkError(code, text)


class Netlink:
    """A rtnetlink socket. It owns its descriptor; `with` closes it."""

    def __init__(self) -> None:
        self._socket = _socket.socket(AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, 0)
        self._number = 0
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def _packets(self) -> Iterator[tuple[int, int, bytes]]:
        """The answers to the last request: kind, flags, body."""
        while True:
            data, _, flags, sender = self._socket.recvmsg(MOST_BYTES)
            if flags & _socket.MSG_TRUNC:
                raise NetlinkError(errno.EMSGSIZE, "the kernel's answer is too long")
            place = 0
            while sender[0] == 0 and place + _HEADER.size <= len(data):  # 0 is the kernel
                length, kind, flags, number, _ = _HEADER.unpack_from(data, place)
                if number == self._number:
                    yield kind, flags, data[place + _HEADER.size : place + length]
                place += max(length + 3 & ~3, _HEADER.size)

    def ask(self, kind: int, flags: int, body: bytes) -> list[bytes] | None:
        """Send a request, and wait until it is done; the bodies of what is answered.

        None is a dump that a change has interrupted: ask again.

        Raises:
            NetlinkError: the kernel refused.
        """
        self._number += 1
        flags |= NLM_F_REQUEST | (0 if flags == NLM_F_DUMP else NLM_F_ACK)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._number, 0) + body)
        found: list[bytes] = []
        interrupted = False
        for answer, answer_flags, answer_body in self._packets():
            interrupted = interrupted or bool(answer_flags & NLM_F_DUMP_INTR)
            if answer == NLMSG_ERROR:
                refusal = _refusal(answer_body, answer_flags)
                if refusal is not None:
                    raise refusal
                break
            if answer == NLMSG_DONE:
                break
            found.append(answer_body)
        return None if interrupted else found

    def link(self, name: str) -> Link:
        """The device of that name. Raises NetlinkError, ENODEV when there is none."""
        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
        answers = self.ask(RTM_GETLINK, 0, body) or []
        if not answers:
            raise NetlinkError(errno.ENODEV, "no such device")
        _, _, index, flags, _ = _LINK.unpack_from(answers[0])
        return Link(number=index, flags=flags)

    def addresses(self, index: int) -> list[Address]:
        """The addresses of a device. Raises NetlinkError."""
        for _ in range(MOST_TRIES):
            answers = self.ask(RTM_GETADDR, NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))
            if answers is not None:
                break
        else:
            raise NetlinkError(errno.EINTR, "the addresses change faster than they can be listed")
        found: list[Address] = []
        for body in answers:
            family, length, flags, scope, owner = _ADDRESS.unpack_from(body)
            if owner == index:
                own = attributes(body[_ADDRESS.size :])
                flags = int.from_bytes(own.pop(IFA_FLAGS, bytes([flags])), "little")
                found.append(Address(family=family, prefix_length=length, flags=flags, scope=scope, attributes=own))
        return found

    def add_address(self, index: int, address: Address) -> None:
        """Give a device an address; one that it has is overwritten. Raises NetlinkError."""
        body = _ADDRESS.pack(address.family, address.prefix_length, 0, address.scope, index)
        body += attribute(IFA_FLAGS, _NUMBER.pack(address.flags))
        body += b"".join(attribute(kind, value) for kind, value in address.attributes.items())
        self.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)

    def bring_up(self, index: int) -> None:
        """Set IFF_UP. Raises NetlinkError."""
        self.ask(RTM_SETLINK, 0, _LINK.pack(0, 0, index, IFF_UP, IFF_UP))

    def take_down(self, index: int) -> None:
        """Clear IFF_UP. Raises NetlinkError."""
        self.ask(RTM_SETLINK, 0, _LINK.pack(0, 0, index, 0, IFF_UP))

    def send_away(self, index: int, namespace: int, name: str) -> None:
        """Move a device into an open network namespace, under a new name. Raises NetlinkError."""
        body = _LINK.pack(0, 0, index, 0, 0) + attribute(IFLA_NET_NS_FD, _NUMBER.pack(namespace))
        self.ask(RTM_SETLINK, 0, body + attribute(IFLA_IFNAME, name.encode() + b"\0"))


def netlink_in(namespace: int) -> Netlink:
    """A socket that speaks for an open network namespace. Raises OSError."""
    return opened_in(namespace, Netlink)


def opened_in(namespace: int, opener: Callable[[], Opened]) -> Opened:
    """What `opener` opens in an open network namespace.

    A thread of its own joins the namespace, and ends there: the caller's never leaves its own.

    Raises:
        OSError: the namespace may not be joined.
    """
    found: list[Opened | OSError] = []
    done = _thread.allocate_lock()
    done.acquire()

    def open_there() -> None:
        try:
            join((namespace,), (NAMESPACES["network"][0],))
            found.append(opener())
        except OSError as error:
            found.append(error)
        finally:
            done.release()

    _thread.start_new_thread(open_there, ())
    done.acquire()
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]
