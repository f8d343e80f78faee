"""The exceptions that callers may act on, as one tree. Ground: it touches nothing.

    Error
    ├── ConfigError          what was asked for is wrong or cannot be had here; nothing was touched
    ├── HostError            this kernel or this user cannot do it at all
    ├── LaunchError          a step between `clone3` and the program's `execve` failed
    │   └── ProgramError     that step was the program's own `execve` or look-up: it "could not start"
    ├── CgroupError          a file or directory of a cgroup refused
    ├── ContainerError       a container is not what a verb needs
    │   ├── ContainerExists      its id is taken
    │   ├── ContainerNotFound    there is none of that id
    │   ├── ContainerNotRunning  it has ended, or not started
    │   ├── ContainerRunning     it has to be stopped first
    │   ├── ContainerPaused      it has to go on first
    │   ├── ContainerBusy        another program changes it, and is not done
    │   └── StateError           its state on disk cannot be read, or is of another version
    ├── HookError            a hook failed, or took too long
    ├── WaitTimeout          a process has not ended in the time that it was given
    ├── CallGone             nobody waits for a supervisor's answer any more
    ├── StatusUnknown        the program ended, and someone else took its exit status
    ├── CheckpointError      a container is not fit to be saved; it runs on
    ├── CriuError            criu refused, failed or died
    └── RunError             `run(check=True)`: the program failed

What a caller may act on is an attribute; the text is made when it is asked for.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

LONGEST_SHOWN: Final = 60  # letters of a value that an error quotes


_PLAINER: Final = {  # than strerror(3)
    errno.EMFILE: "Too many open files in this process: raise its limit, ulimit -n",
    errno.ENFILE: "Too many open files on this machine: raise the sysctl fs.file-max",
}


def errno_of(error: OSError) -> int:
    """The kernel's answer. Without one it is what a signal handler raised, TimeoutError as many do: that goes on."""
    if error.errno is None:
        raise error
    return error.errno


def name_of(code: int) -> str:
    """An errno's name and meaning: "EPERM (Operation not permitted)"."""
    return f"{errno.errorcode.get(code, f'errno {code}')} ({_PLAINER.get(code) or os.strerror(code)})"


def reason_of(error: OSError) -> str:
    """The same of what the kernel has answered; see `errno_of`."""
    return name_of(errno_of(error))


def printable(text: str) -> str:
    """`text` on one line, with control characters and lone surrogates escaped: it may be hostile."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """A value as an error quotes it: JSON's words, and short however large or deep it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value) if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]!r}..."
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 128 else "a number of more than 38 digits"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "an object"
    return "an array" if isinstance(value, list | tuple) else f"a Python {type(value).__name__}"


class Error(Exception):
    """Any failure that cycontainer itself reports."""


class ConfigError(Error):
    """A configuration or argument is wrong, or asks for what this host cannot do.

    Attributes:
        path: where it stands: "process.rlimits[2].soft", or an argument's name.
        problem: what is wrong with it, or what would be right.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.problem}" if self.path else self.problem)


class HostError(Error):
    """This machine cannot do what any container needs; the text says what is missing."""


class LaunchError(Error):
    """A step between `clone3` and the program's `execve` failed; what had been made is undone.

    Attributes:
        attempt: what the step was to do, in words: "mount proc on /proc".
        errno: the kernel's answer, positive: `errno.EPERM`; 0 when a signal or a deadline ended it.
        step, steps: which step it was, from 1, and of how many; 0 when none had begun.
    """

    def __init__(self, attempt: str, code: int, step: int, steps: int) -> None:
        super().__init__(attempt, code, step, steps)  # the same arguments, so that it pickles
        self.attempt, self.errno, self.step, self.steps = attempt, code, step, steps

    def __str__(self) -> str:
        return self._told(self.attempt)

    def _told(self, what: str, *, whose: str = "") -> str:
        reason = f": {name_of(self.errno)}{whose}" if self.errno else ""
        place = f"; step {self.step} of {self.steps}" if self.step else ""
        return printable(f"{what}{reason}{place}")


class ProgramError(LaunchError):
    """The container was ready, and its program could not be executed.

    Attributes:
        program: its name as it was asked for.
        found: whether the look-up had found it, and its `execve` failed.
        status: what a shell would return: 127 when there is no such file, else 126.
    """

    def __init__(self, attempt: str, code: int, step: int, steps: int, program: str = "", found: bool = False) -> None:
        super().__init__(attempt, code, step, steps)
        self.args = (attempt, code, step, steps, program, found)
        self.program, self.found = program, found

    def __str__(self) -> str:
        lost = self.found and self.errno == errno.ENOENT
        return self._told(f"{self.attempt} {self.program}".rstrip(), whose=" of its interpreter" if lost else "")

    @property
    def status(self) -> int:
        return 127 if self.errno == errno.ENOENT else 126


_ADVICE = (  # the files that it is about, () is any; the errno; what to do
    (
        ("cgroup.subtree_control",),
        errno.EBUSY,
        "processes are in that cgroup, so it cannot give controllers to those below: move them into one of their own",
    ),
    (("cgroup.subtree_control",), errno.EOPNOTSUPP, "it is a threaded cgroup, which takes no such controller"),
    (("cgroup.subtree_control",), errno.ENOENT, "the cgroup above it does not hand that controller on"),
    (("cgroup.subtree_control",), errno.EACCES, "that cgroup is not this user's: have its controllers delegated"),
    (("cpuset.cpus", "cpuset.mems"), errno.ERANGE, "there is no such number on this machine"),
    (("cpuset.cpus", "cpuset.mems"), errno.EACCES, "the cgroup above it does not have all of these"),
    (("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), errno.EBUSY, "more than that is in use and stays so"),
    (
        ("memory.current", "memory.usage_in_bytes", "memory.swap.current", "memory.memsw.usage_in_bytes"),
        errno.EBUSY,
        "more than that is in use: checkBeforeUpdate",
    ),
    (("cgroup.procs",), errno.EOPNOTSUPP, "it is a threaded cgroup, or lies beside or below one: choose another"),
    (
        ("cgroup.procs",),
        errno.EBUSY,
        "it gives controllers to cgroups below it, and so takes no process: choose another",
    ),
    ((), errno.ENOENT, "this kernel, or the cgroup above, does not have it"),
    ((), errno.EROFS, "the cgroup file system is mounted read-only here"),
    ((), errno.EACCES, "that cgroup is not this user's: limits need root, or a delegated cgroup on v2"),
    ((), errno.EXDEV, "a process in that cgroup lives in another pid namespace: it cannot be reached from here"),
    ((), errno.EDEADLK, "the calling process is in that cgroup itself"),
    ((), errno.EBUSY, "processes are in that cgroup, or do not leave it: end them, or choose another"),
    ((), errno.EOPNOTSUPP, "it is no cgroup of the kind that is expected there, or a threaded one"),
    ((), errno.ENOSPC, "the number of cgroups is limited there: cgroup.max.descendants, cgroup.max.depth"),
)


class CgroupError(Error):
    """A cgroup's file or directory refused; the files before it keep their values.

    Attributes:
        path: the file or directory.
        errno: the kernel's answer, positive.
        value: what was to be written, if anything was.
        advice: what it comes of and what to do, where that is known.
    """

    def __init__(self, path: str, code: int, value: str | None = None) -> None:
        super().__init__(path, code, value)
        self.path, self.errno, self.value = path, code, value
        file = path.rpartition("/")[2]
        known = [text for names, which, text in _ADVICE if which == code and (not names or file in names)]
        self.advice = known[0] if known else ""

    def __str__(self) -> str:
        what = self.path if self.value is None else f"{self.path}: write {self.value!r}"
        return printable("; ".join([f"{what}: {name_of(self.errno)}", *filter(None, [self.advice])]))


class ContainerError(Error):
    """A container is not what a verb needs.

    Attributes:
        container_id: which one.
        problem: what is wrong, in the words that engines match.
    """

    def __init__(self, container_id: str, problem: str) -> None:
        super().__init__(container_id, problem)
        self.container_id, self.problem = container_id, problem

    def __str__(self) -> str:
        return printable(f"{self.problem}: {self.container_id}")


class ContainerExists(ContainerError):
    """The id is taken under this root."""

    def __init__(self, container_id: str, problem: str = "container with given ID already exists") -> None:
        super().__init__(container_id, problem)


class ContainerNotFound(ContainerError):
    """There is no container of this id under this root."""

    def __init__(self, container_id: str, problem: str = "container does not exist") -> None:
        super().__init__(container_id, problem)


class ContainerNotRunning(ContainerError):
    """It has ended, or has not been started."""

    def __init__(self, container_id: str, problem: str = "container not running") -> None:
        super().__init__(container_id, problem)


class ContainerRunning(ContainerError):
    """It runs, and the verb needs one that does not."""


class ContainerPaused(ContainerError):
    """It is paused, and the verb needs one that is not."""


class ContainerBusy(ContainerError):
    """Another program changes it, and was not done in the time that it got. What it is, the text says."""


class StateError(ContainerError):
    """Its state on disk cannot be read, is damaged, or was written by a later version; it was left as it is."""


class HookError(Error):
    """A hook failed: what was being made is undone.

    Attributes:
        kind: "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop".
        number: which of them, from 0.
        problem: how it ended.
        output: the end of what it printed on its standard error.
    """

    def __init__(self, kind: str, number: int, problem: str, output: str = "") -> None:
        super().__init__(kind, number, problem, output)
        self.kind, self.number, self.problem, self.output = kind, number, problem, output

    def __str__(self) -> str:
        said = f", stderr: {self.output.strip()}" if self.output.strip() else ""
        return printable(f"error running {self.kind} hook #{self.number}: {self.problem}{said}")


class WaitTimeout(Error, TimeoutError):
    """A process has not ended in the time that it was given; it goes on."""


class CallGone(Error):
    """A system call that a supervisor was asked about was given up, by a signal or its caller's end.

    What was read of the caller may be another's; leave the callable with this error.

    Attributes:
        name: of the system call.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name}: nobody waits for the answer any more"


class StatusUnknown(Error):
    """The program ended, but this process ignores SIGCHLD or something in it waited first."""


class CheckpointError(Error):
    """A container is not fit to be saved; it runs on."""


class CriuError(Error):
    """CRIU refused, failed or died. After a failed checkpoint the container runs on; a failed restore leaves nothing.

    Attributes:
        attempt: what criu was to do: "checkpoint", "restore".
        problem: how it ended, in words: "EIO (Input/output error)", "killed by signal 9".
        log: the path of its log; "" when it had none.
        lines: what of that log matters, each line with its number.
        advice: what the user can do, where that is known.
    """

    def __init__(
        self, attempt: str, problem: str, log: str = "", lines: tuple[str, ...] = (), advice: tuple[str, ...] = ()
    ) -> None:
        super().__init__(attempt, problem, log, lines, advice)
        self.attempt, self.problem, self.log, self.lines, self.advice = attempt, problem, log, lines, advice

    def __str__(self) -> str:
        place = f"; log {self.log}" if self.log else ""
        texts = [f"criu {self.attempt}: {self.problem}{place}", *(f"  {line}" for line in self.lines), *self.advice]
        return "\n".join(map(printable, texts))


class RunError(Error):
    """`run(check=True)` and `Result.check_returncode`: the program failed.

    Attributes:
        result: the whole `Result`, with what the program printed.
    """

    def __init__(self, result: Any) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        result = self.result
        end = {
            "timeout": "ran into its timeout",
            "output_limit": "printed more than its output_limit",
            "memory": "was killed for exceeding its memory limit",
            "signal": f"died of signal {result.signal}",
            "exit": f"returned exit status {result.returncode}",
        }[result.ended_by]
        return printable(f"{' '.join(map(str, result.args))} {end}")
