"""What a run is asked for, checked whole before anything is done. Face."""

from __future__ import annotations

from cycontainer._arguments import (
    absolute_paths,
    check_count,
    check_flag,
    check_given,
    check_keywords,
    check_limits,
    check_number,
    check_path,
    check_supervisor,
    check_work_size,
    directory,
    environment_entries,
    input_bytes,
    mount_entries,
    program_arguments,
    user_ids,
)
from cycontainer._plans import plan_for, unit_wish
from cycontainer.errors import ConfigError
from cycontainer.host import current
from cycontainer.record import Record
from cycontainer.sandbox import ENVIRONMENT, Options
from cycontainer.streams import DEVNULL, PIPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike
    from typing import Any, Final, TypedDict

    from cycontainer._unit_run import UnitWish
    from cycontainer._work import Exchange
    from cycontainer.cgroup_layout import CgroupLayout
    from cycontainer.plan import Plan
    from cycontainer.stock import Stock
    from cycontainer.streams import Stream
    from cycontainer.supervisor import Answer, Call

    class Outline(TypedDict, total=False):
        """The keywords of `run()` that say what the container is."""

        rootfs: str | PathLike[str] | None
        cwd: str | None
        user: int | str | None
        hostname: str | None
        memory: int | None
        cpus: float | None
        pids: int | None
        network: str
        mounts: Sequence[Mapping[str, Any]]
        read_only: bool
        masked_paths: Sequence[str]
        user_namespace: bool
        init: bool
        config: dict[str, Any] | None
        work_size: int

    class CallKeywords(TypedDict, total=False):
        """Those that say what is run in it, and how, but `check`."""

        input: bytes | str | None
        stdin: Stream
        stdout: Stream
        stderr: Stream
        capture_output: bool
        text: bool
        encoding: str | None
        errors: str | None
        timeout: float | None
        env: Mapping[str, str] | None
        output_limit: int | None
        files: Mapping[str, bytes | str] | None
        collect: Sequence[str]

    class Keywords(Outline, CallKeywords, total=False):
        """All of them."""

        supervisor: Mapping[str, Callable[[Call], Answer]] | None
        cgroup_manager: str


FOREVER: Final = float("inf")


class Request(Record):
    """One run, checked: what `run()` was given, and the plan that it comes to.

    Attributes:
        plan: compiled; args and env are filled in when it is launched.
        layout: where it makes its cgroup.
        args, env: the program's; env None is the plan's.
        stdin, stdout, stderr: what `Streams.add` takes.
        data: what the program reads, when stdin is a pipe.
        timeout: seconds, infinity for none.
        decoding: (encoding, errors) of what is captured; None leaves it bytes.
        supervisor: who answers which system calls.
        output_limit: bytes that are kept of both outputs, -1 for any number.
        exchange: files that go in and come out.
        stock: of a template, which it is launched from; None makes all anew.
        unit: systemd makes its cgroup, and `plan` is only what was checked; None: we do.
    """

    plan: Plan
    layout: CgroupLayout
    args: tuple[str, ...]
    env: tuple[str, ...] | None
    stdin: Stream
    stdout: Stream
    stderr: Stream
    data: bytes
    timeout: float
    decoding: tuple[str, str] | None
    supervisor: Mapping[str, Callable[[Call], Answer]] | None
    output_limit: int
    exchange: Exchange | None
    stock: Stock | None = None
    unit: UnitWish | None = None


def request(
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
    output_limit: int | None = None,
    files: Mapping[str, bytes | str] | None = None,
    collect: Sequence[str] = (),
    work_size: int = 64 << 20,
    cgroup_manager: str = "cgroupfs",
) -> Request:
    """The keywords of `run()` as a Request. Raises ConfigError."""
    check_work_size(work_size)
    check_supervisor(supervisor)
    exchanged = None
    if files is not None or collect:
        from cycontainer._work import PLACE, exchange

        exchanged = exchange(files, collect, work_size)
        cwd = PLACE if exchanged and cwd is None and config is None else cwd
    options = container_options(
        rootfs=rootfs, cwd=cwd, user=user, hostname=hostname, memory=memory, cpus=cpus, pids=pids, network=network,
        read_only=read_only, masked_paths=masked_paths, user_namespace=user_namespace, init=init,
        supervised=tuple(supervisor or ()), work=work_size if exchanged else 0,
    )  # fmt: skip
    arguments = program_arguments(args)
    called = call(
        arguments, input=input, stdin=stdin, stdout=stdout, stderr=stderr, capture_output=capture_output, text=text,
        encoding=encoding, errors=errors, timeout=timeout, env=env, output_limit=output_limit,
        environment=ENVIRONMENT if config is None else None,
    )  # fmt: skip
    if cgroup_manager not in ("cgroupfs", "systemd"):
        raise ConfigError("cgroup_manager", f"must be cgroupfs or systemd, not {cgroup_manager!r}")
    if cgroup_manager == "systemd":
        wish = unit_wish(options, arguments, mount_entries(mounts), config)
        return Request(
            plan=wish.checked(), layout=current().cgroups, supervisor=supervisor or None, exchange=exchanged,
            unit=wish, **called,
        )  # fmt: skip
    prepared = plan_for(options, arguments, mount_entries(mounts), config)
    return Request(
        plan=prepared.plan, layout=prepared.host.cgroups, supervisor=supervisor or None, exchange=exchanged, **called
    )


def container_options(
    *,
    rootfs: str | PathLike[str] | None = None,
    cwd: str | None = None,
    user: int | str | None = None,
    hostname: str | None = None,
    memory: int | None = None,
    cpus: float | None = None,
    pids: int | None = None,
    network: str = "none",
    read_only: bool = True,
    masked_paths: Sequence[str] = (),
    user_namespace: bool = False,
    init: bool = True,
    supervised: tuple[str, ...] = (),
    work: int = 0,
) -> Options:
    """The keywords that say what the container is. Raises ConfigError."""
    check_flag("read_only", read_only)
    check_flag("user_namespace", user_namespace)
    check_flag("init", init)
    check_limits(memory, cpus, pids)
    check_path("cwd", cwd)
    check_given("hostname", hostname)
    if network not in ("none", "host"):
        raise ConfigError("network", f"must be none or host, not {network!r}")
    root = None if rootfs is None else directory(rootfs, "rootfs")
    uid, gid = user_ids(user, root)
    return Options(
        rootfs=root, cwd=cwd, uid=uid, gid=gid, hostname=hostname, memory=memory, cpus=cpus, pids=pids, network=network,
        read_only=read_only, user_namespace=user_namespace, keep_init=init,
        masked_paths=absolute_paths(masked_paths, "masked_paths"), supervised=supervised, private=(), work=work,
    )  # fmt: skip


def call(
    args: tuple[str, ...],
    *,
    environment: tuple[str, ...] | None,
    input: bytes | str | None = None,
    stdin: Stream = DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    capture_output: bool = True,
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    output_limit: int | None = None,
) -> dict[str, Any]:
    """The keywords that say what is run in it, and how, as fields of a Request. Raises ConfigError.

    `environment`: where `env` does not say otherwise; None is the plan's.
    """
    check_flag("capture_output", capture_output)
    check_flag("text", text)
    check_number("timeout", timeout, 0, FOREVER)
    check_count("output_limit", output_limit, 0)
    entries = environment_entries(env)
    decode = text or encoding is not None or errors is not None
    return {
        "args": args,
        "env": environment if entries is None else entries,
        "stdin": PIPE if input is not None else stdin,
        "stdout": PIPE if stdout is None and capture_output else stdout,
        "stderr": PIPE if stderr is None and capture_output else stderr,
        "data": input_bytes(input, encoding, errors),
        "timeout": FOREVER if timeout is None else timeout,
        "decoding": (encoding or "utf-8", errors or "strict") if decode else None,
        "output_limit": -1 if output_limit is None else output_limit,
    }


# --- which keywords there are, for functions that pass theirs on

ALL: Final = frozenset(request.__kwdefaults__ or ())
OF_A_CALL: Final = frozenset(call.__kwdefaults__ or ()) | {"files", "collect"}
OF_AN_OUTLINE: Final = ALL - OF_A_CALL - {"supervisor", "cgroup_manager"}


def asked(function: str, args: Sequence[str | PathLike[str]], keywords: Keywords) -> Request:
    """`request` for a public function, by its name. Raises ConfigError; TypeError: it has no such keyword."""
    check_keywords(function, keywords, ALL)
    return request(args, **keywords)
