"""run(): one call, one container, one result. Face."""

from __future__ import annotations

from cycontainer._arguments import check_flag
from cycontainer._request import request
from cycontainer._running import finish
from cycontainer.streams import DEVNULL as DEVNULL
from cycontainer.streams import PIPE as PIPE
from cycontainer.streams import STDOUT as STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike
    from typing import Any

    from cycontainer._result import Result
    from cycontainer.streams import Stream
    from cycontainer.supervisor import Answer, Call


def run(
    args: Sequence[str | PathLike[str]],
    *,
    rootfs: str | PathLike[str] | None = None,
    input: bytes | str | None = None,
    stdin: Stream = DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    capture_output: bool = True,
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    timeout: float | None = None,
    check: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: int | str | None = None,
    hostname: str | None = None,
    memory: int | None = None,
    cpus: float | None = None,
    pids: int | None = None,
    network: str = "none",
    mounts: Sequence[Mapping[str, Any]] = (),
    read_only: bool = True,
    masked_paths: Sequence[str] = (),
    user_namespace: bool = False,
    init: bool = True,
    supervisor: Mapping[str, Callable[[Call], Answer]] | None = None,
    config: dict[str, Any] | None = None,
    cgroup_manager: str = "cgroupfs",
    output_limit: int | None = None,
    files: Mapping[str, bytes | str] | None = None,
    collect: Sequence[str] = (),
    work_size: int = 64 << 20,
) -> Result:
    """Run a program in a container of its own, and wait for it.

    The container is isolated: namespaces of its own, no network, no capability, no new privileges, a seccomp filter,
    nothing of the caller's environment.

    Args:
        args: the program, looked up in the container's PATH, and its arguments.
        rootfs: the container's root directory; None is the host's own, read-only, with private and empty /tmp, /run,
            home directories and /sys.
        input: all that the program reads from its standard input; a str is encoded.
        stdin, stdout, stderr: a descriptor, a file, PIPE, DEVNULL, or None for the caller's; stderr also STDOUT.
        capture_output: collect what is printed, where stdout and stderr do not say otherwise.
        text, encoding, errors: decode what was captured, and encode `input`. Line ends stay as they are.
        timeout: wall-clock seconds from the launch on; then all its processes are killed.
        check: raise RunError when it fails.
        env: the whole environment; None is a PATH and a LANG.
        cwd: absolute, in the container.
        user: a uid, "uid:gid", or a name in the container's passwd. None: root of a rootfs of one's own, nobody on
            the host's, oneself as an ordinary user.
        hostname: at most 64 bytes; None is "cycontainer".
        memory: bytes that all its processes may hold together, swap included.
        cpus: processors' worth of time, 0.5 is half of one.
        pids: processes and threads that may exist at once.
        network: "none", a network of its own with only a loopback; or "host".
        mounts: as in the runtime-spec, each a dict with destination, type, source, options.
        read_only: the root cannot be written (the host's never can).
        masked_paths: absolute paths in the container that are to read as empty.
        user_namespace: map the container's ids to others of the host. An ordinary user always has one.
        init: a pid 1 stays beside the program: it reaps, passes signals on, and ends with the caller.
        supervisor: system calls by their names, and what answers each: called with a `Call` in a thread of this
            process, it returns `Continue`, `Errno`, `Value` or `Descriptor`. What it raises ends the container, and
            is raised from here.
        config: a runtime-spec configuration to start from, instead of the isolated default: what it says of network,
            user namespace and a read-only root is what is done. It has no hooks and no terminal, and its cgroup is a
            new one, whatever `cgroupsPath` says. Without a pid namespace of its own it ends with its cgroup; when it
            has none either, no limits, what the program leaves behind goes on.
        cgroup_manager: who makes its cgroup: "cgroupfs", cycontainer itself; "systemd", which is asked for a scope.
        output_limit: bytes that are kept of stdout and stderr together, where they are captured; a program that writes
            more is killed, and `output_exceeded` is set.
        files: what lies in the working directory in the beginning, by paths below it; a str is encoded. That directory
            is then a file system of its own, in memory, which the program can write, and belongs to its user: `cwd`,
            /tmp/work if that is not given. No directory of the host is written or can be.
        collect: patterns of files below the working directory that come back as `files`: *, ?, [...] within a
            component, ** for any number of directories. Links are not followed, nor are devices and the like opened.
        work_size: bytes that the working directory can hold, and that are collected at most.

    Returns:
        What became of it: `returncode` is the exit status, or minus the number of the signal that ended it. A timeout
        is a result too: `timed_out` is set, and what was printed until then is there; `files` then, too.

    Raises:
        ConfigError: an argument is wrong; it names which. Nothing was started.
        LaunchError: the container could not be made; it names the step. Nothing is left.
        ProgramError: it was made, and the program could not be executed. Nothing is left.
        CgroupError: a limit could not be set. Nothing is left.
        HostError: this kernel lacks what a container needs.
        StatusUnknown: it ended, and someone else in this process took its exit status.
        UnicodeDecodeError: what it printed is no text in that encoding; `errors` may say what to do then.
        RunError: with `check`, the program failed; `result` is all of it.

    Source: runtime-spec config.md, config-linux.md.
    """
    check_flag("check", check)
    result = finish(
        request(
            args, rootfs=rootfs, input=input, stdin=stdin, stdout=stdout, stderr=stderr, capture_output=capture_output,
            text=text, encoding=encoding, errors=errors, timeout=timeout, env=env, cwd=cwd, user=user,
            hostname=hostname, memory=memory, cpus=cpus, pids=pids, network=network, mounts=mounts,
            read_only=read_only, masked_paths=masked_paths, user_namespace=user_namespace, init=init,
            supervisor=supervisor, config=config, cgroup_manager=cgroup_manager,
            output_limit=output_limit, files=files, collect=collect,
            work_size=work_size,
        )
    )  # fmt: skip
    if check:
        result.check_returncode()
    return result
