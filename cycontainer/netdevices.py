"""`linux.netDevices`: devices of the host that move into the container's network namespace. Lifecycle.

Source: runtime-spec 1.3, config-linux.md, "Network Devices".
"""

from __future__ import annotations

import errno
import os

from cycontainer._nsenter import open_namespace
from cycontainer.errors import ConfigError, reason_of
from cycontainer.node import member
from cycontainer.record import Record
from cycontainer.rtnetlink import IFF_UP, Address, Netlink, NetlinkError, netlink_in
from cycontainer.tables import NAMESPACES
from cycontainer.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

AF_INET6 = 10
RT_SCOPE_LINK = 253
IFA_F_PERMANENT = 0x80
IFA_F_KEPT: Final = 0x2 | 0x10 | 0x100 | 0x200 | 0x400  # NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN
IFA_LABEL = 3
IFA_KEPT: Final = (1, 2, IFA_LABEL, 4, 6, 9, 11)  # ADDRESS, LOCAL, LABEL, BROADCAST, CACHEINFO, RT_PRIORITY, PROTO


class Device(Record):
    """A device and what it had before it was moved."""

    host_name: str
    name: str  # in the container
    number: int  # its index where it is now
    was_up: bool
    addresses: tuple[Address, ...]


class NetworkDevices:
    """The devices that a container is given: moved to its first process's namespace, and back if the block fails."""

    def __init__(self, devices: tuple[tuple[str, str], ...]) -> None:
        self._devices, self._namespace, self._undo = devices, -1, Undo()

    def __enter__(self) -> NetworkDevices:
        return self

    def move_to(self, pid: int) -> None:
        """Move them to the network namespace of a child that waits. Raises ConfigError as `move_in` does."""
        if not self._devices:
            return
        self._namespace = open_namespace(f"/proc/{pid}/ns/net".encode(), NAMESPACES["network"][0])
        moved = move_in(self._devices, self._namespace)
        self._undo.later("put the network devices back", lambda: put_back(moved, self._namespace))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._undo.__exit__(kind, error, trace)
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1


def move_in(devices: tuple[tuple[str, str], ...], namespace: int) -> tuple[Device, ...]:
    """Move devices of this network namespace into another, with their permanent addresses, and bring them up.

    Args:
        devices: `config.linux.net_devices`: name here, name there.
        namespace: a descriptor of the network namespace; it stays the caller's.

    Returns:
        What `put_back` takes.

    Raises:
        ConfigError: with the JSON path of the device that is missing or cannot be moved; all are where they were.
    """
    from functools import partial  # it imports collections: 10 ms for who has no devices

    own = _own_namespace()
    try:
        with netlink_in(namespace) as there, Netlink() as here, Undo() as undo:
            found = [_look(here, there, host_name, name) for host_name, name in devices]
            moved = []
            for device in found:
                arrived = _send(here, there, namespace, device)
                moved.append(arrived)
                undo.later(f"put {device.host_name} back", partial(_return, here, there, own, arrived))
                _set_up(there, arrived)
            return tuple(moved)
    finally:
        os.close(own)


def put_back(devices: tuple[Device, ...], namespace: int) -> None:
    """Undo `move_in`: the devices are again what they were, but for routes that someone had made by hand.

    Raises:
        OSError: for the first that could not be; those before it are back.
    """
    own = _own_namespace()
    try:
        with netlink_in(namespace) as there, Netlink() as here:
            for device in reversed(devices):
                _return(here, there, own, device)
    finally:
        os.close(own)


def _own_namespace() -> int:
    return open_namespace(b"/proc/thread-self/ns/net", NAMESPACES["network"][0])


def _refused(host_name: str, error: OSError) -> ConfigError:
    problem = error.strerror if error.strerror and ":" in error.strerror else reason_of(error)
    return ConfigError(member("linux.netDevices", host_name), f"cannot be moved: {problem}")


def _look(here: Netlink, there: Netlink, host_name: str, name: str) -> Device:
    """What a device is and has. The name must be free where it goes."""
    where = member("linux.netDevices", host_name)
    try:
        link = here.link(host_name)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise _refused(host_name, error) from None
        raise ConfigError(where, "there is no network device of that name") from None
    try:
        there.link(name)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise _refused(host_name, error) from None
    else:
        raise ConfigError(where, f"the container's network namespace has a device {name} already")
    kept = tuple([_kept(address) for address in here.addresses(link.number) if _is_kept(address)])
    return Device(host_name=host_name, name=name, number=link.number, was_up=bool(link.flags & IFF_UP), addresses=kept)


def _is_kept(address: Address) -> bool:
    """Permanent ones; but for IPv6 the kernel makes those of the link itself."""
    own = address.family == AF_INET6 and address.scope == RT_SCOPE_LINK
    return bool(address.flags & IFA_F_PERMANENT) and not own


def _kept(address: Address) -> Address:
    """An address without what the kernel adds; a broadcast address that someone has set stays what it is."""
    attributes = {kind: value for kind, value in address.attributes.items() if kind in IFA_KEPT}
    return address.replace(flags=address.flags & IFA_F_KEPT, attributes=attributes)


def _send(here: Netlink, there: Netlink, namespace: int, device: Device) -> Device:
    try:
        here.send_away(device.number, namespace, device.name)
        return device.replace(number=there.link(device.name).number)
    except NetlinkError as error:
        raise _refused(device.host_name, error) from None


def _set_up(there: Netlink, device: Device) -> None:
    """The addresses, then up: with that come the routes that belong to them."""
    try:
        for address in device.addresses:
            there.add_address(device.number, _relabelled(address, device.host_name, device.name))
        there.bring_up(device.number)
    except NetlinkError as error:
        raise _refused(device.host_name, error) from None


def _relabelled(address: Address, old: str, new: str) -> Address:
    """An IPv4 address's label begins with its device's name: "eth0:1"."""
    label = address.attributes.get(IFA_LABEL)
    if label is None or not label.startswith(old.encode()):
        return address
    text = (new.encode() + label[len(old.encode()) :].rstrip(b"\0"))[:15] + b"\0"
    return address.replace(attributes={**address.attributes, IFA_LABEL: text})


def _return(here: Netlink, there: Netlink, own: int, device: Device) -> None:
    there.send_away(device.number, own, device.host_name)
    index = here.link(device.host_name).number
    for address in device.addresses:
        here.add_address(index, address)
    if device.was_up:
        here.bring_up(index)
