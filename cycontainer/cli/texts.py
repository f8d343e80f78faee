"""What an error is called in the words that callers of OCI runtimes match: runc's. Face; it touches nothing.

The library's errors say what failed as attributes; here they become the texts that engines and scripts know.
"""

from __future__ import annotations

import errno
import os

from cycontainer.errors import CgroupError, ConfigError, Error, LaunchError, ProgramError, name_of, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PREFIXES: Final = {"create": "create failed: ", "run": "run failed: ", "exec": "exec failed: "}
SECTIONS: Final = frozenset(
    ("annotations", "domainname", "hooks", "hostname", "linux", "mounts", "ociVersion", "process", "root")
)
MOUNTING: Final = (  # how the attempts begin that make the file tree
    *("attach ", "copy the image's ", "find ", "keep mounts ", "label ", "link ", "make ", "mask ", "mount "),
    *("open a ", "set option ", "set the mount options ", "set the propagation ", "take the "),
)


def message_of(verb: str, error: Error | OSError) -> str:
    """An error of a verb on one line, or, where criu has spoken, on several."""
    notes = "".join([f"; {printable(note)}" for note in getattr(error, "__notes__", ())])  # what could not be undone
    return PREFIXES.get(verb, "") + _text(error, verb) + notes


def reason(code: int) -> str:
    """An errno as C's and Go's programs print it: "no such file or directory"."""
    text = os.strerror(code)
    return text[:1].lower() + text[1:]


def _text(error: Error | OSError, verb: str) -> str:
    if isinstance(error, ProgramError):
        return printable(_program(error))
    if isinstance(error, LaunchError):
        return printable(_launch(error))
    if isinstance(error, CgroupError):
        return printable(_cgroup(error, verb))
    if isinstance(error, ConfigError):
        return _config(error)
    return printable(_system(error)) if isinstance(error, OSError) else _in_words(str(error))


def _in_words(text: str) -> str:
    """A text of the library, in which each "ENOENT (No such file or directory)" is as callers match it."""
    for code in errno.errorcode:
        text = text.replace(name_of(code), reason(code))
    return text


def _program(error: ProgramError) -> str:
    name, code = error.program or "the program", error.errno
    if error.found:
        what = f"exec {name}: {reason(code).lower()}"
    elif code == errno.ENOENT and "/" not in name:
        what = f'exec: "{name}": executable file not found in $PATH'
    elif code == errno.ENOENT:
        what = f'exec: "{name}": stat {name}: no such file or directory'
    else:
        what = f'exec: "{name}": {reason(code)}'
    return f"unable to start container process: {what}"


def _launch(error: LaunchError) -> str:
    if error.attempt in ("find or make /proc", "find or make /sys") and error.errno in (errno.ELOOP, errno.ENOTDIR):
        return f"unable to start container process: {error.attempt[13:]} must be mounted on ordinary directory"
    kind = "error mounting: " if error.attempt.startswith(MOUNTING) else ""
    why = f": {reason(error.errno)}" if error.errno else ""
    place = (
        f" ({errno.errorcode.get(error.errno, error.errno)}; step {error.step} of {error.steps})" if error.step else ""
    )
    return f"unable to start container process: {kind}{error.attempt}{why}{place}"


def _cgroup(error: CgroupError, verb: str) -> str:
    file = error.path.rpartition("/")[2]
    if error.errno == errno.EBUSY and file in ("memory.current", "memory.usage_in_bytes"):
        return f"rejecting memory limit {error.value}: more is in use"
    if error.errno == errno.EBUSY and file in ("memory.swap.current", "memory.memsw.usage_in_bytes"):
        return f"rejecting memory+swap limit {error.value}: more is in use"
    if error.errno == errno.EBUSY and file != "cgroup.procs" and error.value is None and verb in ("create", "run"):
        return f"container's cgroup is not empty: {error.path}"
    what = f"write {error.value!r} to {error.path}" if error.value is not None else error.path
    text = f"unable to apply cgroup configuration: {what}: {reason(error.errno)}"
    text = f"{text}; {error.advice}" if error.advice else text
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        return f"rootless needs no limits + no cgrouppath when no permission is granted for cgroups: {text}"
    return text


def _config(error: ConfigError) -> str:
    text = _in_words(str(error))
    section = error.path.partition(".")[0].partition("[")[0]
    return f"invalid configuration: {text}" if section in SECTIONS else text


def _system(error: OSError) -> str:
    what = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    why = reason(error.errno) if error.errno else error.strerror or "failed"
    return f"{what}: {why}" if what else why
