"""A change of limits: whether it may be made, in which order, and what to write in order to undo it. Hot."""

from __future__ import annotations

import os
from errno import EACCES, EBUSY, EINVAL, ENOENT

from cycontainer.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cycontainer.cgroups import Cgroup, _Plan

    Writes = tuple[tuple[bytes, bytes], ...]

DEVICE_FILES = (b"devices.allow", b"devices.deny")
ALL_DEVICES = b"a *:* rwm"

# Files with a line for each device, and what stands for the absence of one.
BY_DEVICE = {
    b"blkio.bfq.weight_device": b"0",
    b"blkio.throttle.read_bps_device": b"0",
    b"blkio.throttle.write_bps_device": b"0",
    b"blkio.throttle.read_iops_device": b"0",
    b"blkio.throttle.write_iops_device": b"0",
    b"io.bfq.weight": b"default",
    b"io.weight": b"default",
    b"io.max": b"rbps=max wbps=max riops=max wiops=max",
    b"io.latency": b"target=0",
    b"net_prio.ifpriomap": b"0",
    b"rdma.max": b"hca_handle=max hca_object=max",
    b"misc.max": b"max",
}


def update(cgroup: Cgroup, plan: _Plan, beside: Callable[[], object] | None) -> None:
    """Write other limits, or none; see `Cgroup.update`. Devices are last: v1 does not tell what was denied before."""
    wanted = {cgroup.index_of(each.mount): each.writes for each in plan.hierarchies if each.writes}
    programs = {cgroup.index_of(each.mount): each.devices for each in plan.hierarchies if each.devices}
    check_usage(cgroup, plan)
    forth: dict[int, Writes] = {}
    back: dict[int, Writes] = {}
    for index, writes in wanted.items():
        forth[index], back[index] = _steps_of(cgroup, index, writes)
    undo = _without_devices(back)
    try:
        cgroup.write_all(_without_devices(forth))
        if beside is not None:
            beside()
            cgroup.write_all(_without_devices(forth))
        undo = back
        cgroup.write_all(_devices_of(forth))
        for index, program in programs.items():
            cgroup.replace_devices(index, program)
    except BaseException as error:
        put_back(cgroup, undo, error)
        raise


def put_back(cgroup: Cgroup, before: dict[int, Writes], error: BaseException) -> BaseException:
    """Write old values: as many as can be. What cannot becomes a note on `error`, which is returned."""
    for index, writes in before.items():
        try:
            cgroup.write_all({index: writes})
            continue
        except CgroupError:
            alone = writes  # one that is refused does not keep the others from it
        for write in alone:
            try:
                cgroup.write_all({index: (write,)})
            except CgroupError as failure:
                error.add_note(f"could not put the old value back: {failure}")
    return error


def values_before(cgroup: Cgroup, wanted: dict[int, Writes]) -> dict[int, Writes]:
    """What undoes that these values are written. Raises CgroupError: a file is not there."""
    return {index: _steps_of(cgroup, index, writes)[1] for index, writes in wanted.items()}


def _steps_of(cgroup: Cgroup, index: int, writes: Writes) -> tuple[Writes, Writes]:
    return steps(writes, lambda file: cgroup.read_from(index, file))


def _without_devices(writes: dict[int, Writes]) -> dict[int, Writes]:
    return {index: tuple([write for write in some if write[0] not in DEVICE_FILES]) for index, some in writes.items()}


def _devices_of(writes: dict[int, Writes]) -> dict[int, Writes]:
    return {index: tuple([write for write in some if write[0] in DEVICE_FILES]) for index, some in writes.items()}


MEMORY = (("memory.usage_in_bytes",), ("memory.current",))  # of v1, of v2
WITH_SWAP = (("memory.memsw.usage_in_bytes",), ("memory.current", "memory.swap.current"))


def check_usage(cgroup: Cgroup, plan: _Plan) -> None:
    """`checkBeforeUpdate`: v2 would kill processes until the rest fits.

    Raises:
        CgroupError: EBUSY with the file that counts more than the limit, its value.
    """
    for limit, sums in ((plan.swap_check, WITH_SWAP), (plan.memory_check, MEMORY)):
        for files in sums if limit is not None else ():
            counts = [int(text) for text in cgroup.read_all(files) if text is not None]
            if limit is not None and sum(counts) > limit:
                path = next(path for path in cgroup.paths if os.path.exists(f"{path}/{files[0]}"))
                raise CgroupError(f"{path}/{files[-1]}", EBUSY, str(limit))


def former_value(file: bytes, value: bytes, text: bytes) -> bytes:
    """What undoes that `value` is written to a file which shows `text`."""
    lines = text.splitlines()
    if file == b"memory.oom_control":  # "oom_kill_disable 0", and counts
        return lines[0].partition(b" ")[2]
    if file in BY_DEVICE:
        key = value.partition(b" ")[0] if b" " in value.strip() else b"default"
        same = [line for line in lines if line.partition(b" ")[0] == key]
        return same[0] if same else key + b" " + BY_DEVICE[file]
    if file == b"cpu.weight" and text.strip() == b"0":  # of an idle one, and not to be written: 1 is the least
        return b"1"
    return text.strip() or b"\n"  # an empty cpuset: nothing would be written with no byte


def device_steps(wanted: Writes, listed: bytes) -> tuple[Writes, Writes]:
    """The writes that change v1's list of allowed devices, and those that change it back.

    A container that runs must not be without /dev/null for a moment, as it would be if all were denied first. What a
    list with all devices denies cannot be read; cgroup-v1/devices.rst.
    """
    lines = dict.fromkeys(listed.splitlines())
    if ALL_DEVICES in lines:
        return wanted, ()  # to allow all again would also allow what it had denied
    back = (b"devices.deny", b"a"), *((b"devices.allow", line) for line in lines)
    if wanted[0] != (b"devices.deny", b"a"):
        return wanted, back
    allowed = dict.fromkeys([value for _, value in wanted[1:]])
    gone = [(b"devices.deny", line) for line in lines if line not in allowed]
    new = [(b"devices.allow", line) for line in allowed if line not in lines]
    return (*gone, *new), (
        *((b"devices.deny", line) for _, line in new),
        *((b"devices.allow", line) for _, line in gone),
    )


def _chosen(wanted: Writes, read: Callable[[bytes], bytes]) -> Iterator[tuple[bytes, bytes, bytes | None]]:
    """The writes, each with the text that its file has, None of one that is only written, as memory.reclaim; an
    alternative ("|file") where the one before has no file.

    Raises:
        CgroupError: a file cannot be read; it has the value that was to be written.
    """
    for index, (file, value) in enumerate(wanted):
        if file.startswith(b"|"):
            continue
        instead = [write for write in wanted[index + 1 : index + 2] if write[0].startswith(b"|")]
        try:
            yield file, value, read(file)
        except CgroupError as error:
            if error.errno in (EACCES, EINVAL):
                yield file, value, None
                continue
            if error.errno != ENOENT or not instead:
                raise CgroupError(error.path, error.errno, os.fsdecode(value)) from None
            other, value = instead[0]
            if other != b"|":
                yield other[1:], value, read(other[1:])


def steps(wanted: Writes, read: Callable[[bytes], bytes]) -> tuple[Writes, Writes]:
    """What to write for the values `wanted`, and what to write in order to undo it. `read` gives a file's text.

    Raises:
        CgroupError: of `read`.
    """
    devices = tuple([write for write in wanted if write[0] in DEVICE_FILES])
    found = list(_chosen(tuple([write for write in wanted if write[0] not in DEVICE_FILES]), read))
    others = tuple([(file, value) for file, value, _ in found])
    before = tuple([(file, former_value(file, value, text)) for file, value, text in found if text is not None])
    if not devices:
        return others, before
    change, back = device_steps(devices, read(b"devices.list"))
    return (*others, *change), (*before, *back)
