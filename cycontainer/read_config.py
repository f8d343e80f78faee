"""Reads the runtime-spec's config.json into records: strictly, and before anything is done. Model.

Source: runtime-spec 1.3, config.md. The section `linux` is read by read_linux.py.
"""

from __future__ import annotations

import os
import stat

from cycontainer.config import Capabilities, Config, Hook, Hooks, IdMap, Mount, Process, Rlimit, Root, Scheduler, User
from cycontainer.errors import ConfigError
from cycontainer.node import Node
from cycontainer.tables import IO_CLASSES, RLIMITS, SCHEDULER_FLAGS, SCHEDULERS, capability_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MOST_BYTES: Final = 16 << 20
MOST_ID: Final = 2**32 - 2
UINT64: Final = 2**64 - 1
MAX_ARGUMENT: Final = 131071  # MAX_ARG_STRLEN less its NUL, execve(2)
MAX_ARGUMENTS: Final = 1 << 20
HOOK_KINDS: Final = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}


# --- text to a document


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError("", f"invalid configuration: the property {twice!r} is there twice")
    return found


def _no_constant(name: str) -> object:
    raise ConfigError("", f"invalid configuration: {name} is not JSON")


def parse(data: bytes) -> object:
    """The JSON document in `data`.

    Raises:
        ConfigError: it is none, is too large or too deep, or names a property twice.
    """
    import json

    if len(data) > MOST_BYTES:
        raise ConfigError("", f"invalid configuration: larger than {MOST_BYTES} bytes")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except RecursionError:
        raise ConfigError("", "invalid configuration: nested too deeply") from None
    except ValueError as error:  # of JSON, of UTF-8, of numbers with thousands of digits
        raise ConfigError("", f"invalid configuration: {error}") from None


def load_bundle(bundle: str, file: str = "config.json") -> Config:
    """The configuration of a bundle.

    Raises:
        ConfigError: it cannot be read, or is wrong.
    """
    path = os.path.join(bundle, file)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us
        with open(fd, "rb") as config:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError("", f"{path}: not a regular file")
            data = config.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError("", f"{path}: {error.strerror}") from None
    return read_config(parse(data), bundle=os.path.abspath(bundle))


# --- the parts


def _read_root(node: Node, bundle: str) -> Root:
    path = node.required()["path"].text()
    if not path:
        raise node["path"].error("is empty")
    return Root(path=os.path.normpath(os.path.join(bundle, path)), readonly=node["readonly"].flag())


def read_id_maps(node: Node) -> tuple[IdMap, ...]:
    """Lines of uid_map or gid_map; user_namespaces(7)."""
    lines: list[IdMap] = []
    for entry in node.array():
        size = entry["size"].integer(1, 2**32 - 1)
        first, host = (entry[key].integer(0, MOST_ID) for key in ("containerID", "hostID"))
        if max(first, host) + size > 2**32 - 1:
            raise entry["size"].error("reaches beyond the last id")
        line = IdMap(container=first, host=host, size=size)
        for other in lines:
            if first < other.container + other.size and other.container < first + size:
                raise entry["containerID"].error(f"{first} is mapped twice")
            if host < other.host + other.size and other.host < host + size:
                raise entry["hostID"].error(f"{host} is mapped twice")
        lines.append(line)
    if len(lines) > 340:
        raise node.error("more than the 340 lines that the kernel takes")
    return tuple(lines)


def _read_mount(node: Node, bundle: str, warnings: list[str]) -> Mount:
    destination = node["destination"].text()
    if not destination:
        raise node["destination"].error("is empty")
    if not destination.startswith("/"):
        warnings.append(f"{node.path}.destination: {destination!r} is not absolute, / is put before it")
    destination = os.path.normpath(f"/{destination.lstrip('/')}")
    options, kind, source = node["options"].texts(), node["type"].text(""), node["source"].text("")
    if ("bind" in options or "rbind" in options or kind == "bind") and source:
        source = os.path.normpath(os.path.join(bundle, source))
    uids, gids = read_id_maps(node["uidMappings"]), read_id_maps(node["gidMappings"])
    if bool(uids) != bool(gids):
        raise node["gidMappings" if uids else "uidMappings"].error("uid and gid mappings go together")
    return Mount(destination=destination, type=kind, source=source, options=options, uid_map=uids, gid_map=gids)


def _read_user(node: Node) -> User:
    return User(
        uid=node["uid"].integer(0, MOST_ID) if node["uid"] else 0,
        gid=node["gid"].integer(0, MOST_ID) if node["gid"] else 0,
        umask=node["umask"].optional_integer(0, 0o777),
        additional_gids=tuple(entry.integer(0, MOST_ID) for entry in node["additionalGids"].array()),
    )


def _read_capabilities(node: Node, warnings: list[str]) -> Capabilities:
    sets: dict[str, int] = {}
    for name in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        sets[name], unknown = capability_mask(node[name].texts())
        warnings.extend(f"{node.path}.{name}: unknown capability {other!r} is ignored" for other in unknown)
    return Capabilities(**sets)


def read_rlimit(node: Node) -> Rlimit:
    """One entry of `process.rlimits`. Source: runtime-spec config.md, "POSIX process"."""
    name = node["type"].text()
    if name not in RLIMITS:
        raise node["type"].error(f"unknown resource limit {name}")
    soft, hard = (node[key].integer(0, UINT64) for key in ("soft", "hard"))
    if soft > hard:
        raise node["soft"].error(f"{soft} is above the hard limit, {hard}")
    return Rlimit(resource=RLIMITS[name], soft=soft, hard=hard)


def _read_rlimits(node: Node) -> tuple[Rlimit, ...]:
    limits: list[Rlimit] = []
    for entry in node.array():
        limit = read_rlimit(entry)
        if any(limit.resource == other.resource for other in limits):
            raise entry["type"].error("is there twice")
        limits.append(limit)
    return tuple(limits)


def _read_env(node: Node) -> tuple[str, ...]:
    env: dict[str, str] = {}
    for entry in node.array():
        text = entry.text()
        name, equals, _ = text.partition("=")
        if not name or not equals:
            raise entry.error("must be NAME=value")
        env.pop(name, None)  # of duplicates the last wins
        env[name] = text
    return tuple(env.values())


def _check_size(node: Node, args: tuple[str, ...], env: tuple[str, ...]) -> None:
    for key, texts in (("args", args), ("env", env)):
        for place, text in enumerate(texts):
            if len(text.encode("utf-8", "surrogateescape")) > MAX_ARGUMENT:
                raise node[key].array()[place].error(f"is longer than execve takes, {MAX_ARGUMENT} bytes")
    if sum(len(text) + 9 for text in (*args, *env)) > MAX_ARGUMENTS:
        raise node["env"].error(f"with args is larger than {MAX_ARGUMENTS} bytes, which execve does not take")


def _read_scheduler(node: Node) -> Scheduler | None:
    if not node:
        return None
    policy = node["policy"].one_of(SCHEDULERS)
    times = {name: node[name].integer(0, UINT64) if node[name] else 0 for name in ("runtime", "deadline", "period")}
    if policy != "SCHED_DEADLINE" and any(times.values()):
        raise node["policy"].error("runtime, deadline and period go with SCHED_DEADLINE only")
    realtime = policy in ("SCHED_FIFO", "SCHED_RR")
    return Scheduler(
        policy=SCHEDULERS[policy],
        flags=sum(SCHEDULER_FLAGS[entry.one_of(SCHEDULER_FLAGS)] for entry in node["flags"].array()),
        nice=node["nice"].integer(-20, 19) if node["nice"] else 0,
        priority=node["priority"].integer(1 if realtime else 0, 99 if realtime else 0) if node["priority"] else 0,
        runtime_ns=times["runtime"],
        deadline_ns=times["deadline"],
        period_ns=times["period"],
    )


def read_cpu_list(node: Node) -> frozenset[int] | None:
    """A list such as "0-2,7"; None when it is missing."""
    if not node:
        return None
    numbers: set[int] = set()
    for part in node.text().split(","):
        first, dash, last = part.strip().partition("-")
        low, high = first, last if dash else first
        if not (low.isascii() and low.isdigit() and high.isascii() and high.isdigit() and len(low) < 6 > len(high)):
            raise node.error(f"must be a list such as 0-2,7, not {node.text()!r}")
        if int(low) > int(high) or int(high) > 8191:
            raise node.error(f"{part} is no range of numbers up to 8191")
        numbers.update(range(int(low), int(high) + 1))
    return frozenset(numbers)


def _read_io_priority(node: Node) -> tuple[int, int] | None:
    if not node:
        return None
    kind = IO_CLASSES[node["class"].one_of(IO_CLASSES)]
    return kind, node["priority"].integer(0, 7) if node["priority"] else 0


def _read_process(node: Node, warnings: list[str]) -> Process | None:
    if not node:
        return None
    args, env = node["args"].required().texts(), _read_env(node["env"])
    if not args or not args[0]:
        raise node["args"].error("must name a program")
    _check_size(node, args, env)
    size = node["consoleSize"]
    rows_columns = tuple(size[key].integer(0, 65535) for key in ("height", "width")) if size else None
    return Process(
        args=args,
        cwd=node["cwd"].path_text(),
        env=env,
        terminal=node["terminal"].flag(),
        console_size=rows_columns,
        user=_read_user(node["user"]),
        capabilities=_read_capabilities(node["capabilities"], warnings),
        rlimits=_read_rlimits(node["rlimits"]),
        no_new_privileges=node["noNewPrivileges"].flag(),
        apparmor_profile=node["apparmorProfile"].text(""),
        selinux_label=node["selinuxLabel"].text(""),
        oom_score_adj=node["oomScoreAdj"].optional_integer(-1000, 1000),
        scheduler=_read_scheduler(node["scheduler"]),
        io_priority=_read_io_priority(node["ioPriority"]),
        cpu_affinity_initial=read_cpu_list(node["execCPUAffinity"]["initial"]),
        cpu_affinity_final=read_cpu_list(node["execCPUAffinity"]["final"]),
    )


def _read_hook(node: Node) -> Hook:
    return Hook(
        path=node["path"].path_text(),
        args=node["args"].texts(),
        env=_read_env(node["env"]),
        timeout=node["timeout"].optional_integer(1, 2**31),
    )


def _read_hooks(node: Node) -> Hooks:
    return Hooks(**{ours: tuple(map(_read_hook, node[name].array())) for name, ours in HOOK_KINDS.items()})


def _read_version(node: Node) -> str:
    version = node.text()
    numbers = version.partition("-")[0].partition("+")[0].split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise node.error(f"must be a version such as 1.3.0, not {version!r}")
    if numbers[0] != "1":
        raise node.error(f"{version} is not a 1.x version")
    return version


def _read_name(node: Node, kinds: frozenset[str]) -> str:
    name = node.text("")
    if len(name.encode("utf-8", "surrogateescape")) > 64:
        raise node.error("is longer than 64 bytes")
    if name and "uts" not in kinds:
        raise node.error("needs a uts namespace: it would rename the host")
    return name


def read_config(document: object, *, bundle: str) -> Config:
    """A configuration document as records; relative paths are joined to `bundle`.

    Raises:
        ConfigError: with the JSON path of what is wrong.
    """
    from cycontainer.read_linux import read_linux

    node = Node(document, "")
    if type(document) is not dict:
        raise ConfigError("", "invalid configuration: must be an object")
    warnings: list[str] = []
    version = _read_version(node["ociVersion"])
    linux = read_linux(node["linux"])
    kinds = frozenset(namespace.type for namespace in linux.namespaces)
    return Config(
        version=version,
        root=_read_root(node["root"], bundle),
        process=_read_process(node["process"], warnings),
        mounts=tuple(_read_mount(entry, bundle, warnings) for entry in node["mounts"].array()),
        hostname=_read_name(node["hostname"], kinds),
        domainname=_read_name(node["domainname"], kinds),
        hooks=_read_hooks(node["hooks"]),
        annotations=tuple((key, value.text()) for key, value in node["annotations"].items()),
        linux=linux,
        warnings=tuple(warnings),
    )
