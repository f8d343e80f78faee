"""Reads the runtime-spec's config.json into records: strictly, and before anything is done. Model.

Source: runtime-spec 1.3, config.md. Properties that it does not know are ignored ("Extensibility"), and so are the
sections of other platforms.
"""

from __future__ import annotations

import os
import stat

from cycontainer.config import Config, Hook, Hooks, Mount, Root
from cycontainer.errors import ConfigError, reason_of, shown
from cycontainer.node import Node
from cycontainer.read_linux import read_id_maps, read_linux
from cycontainer.read_process import read_args, read_env, read_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from cycontainer.config import IdMap, Linux, Process

MOST_BYTES: Final = 16 << 20
MOST_DIGITS: Final = 40  # of a number; the spec's have 20
MOST_NESTED: Final = 32
HOST_NAME_MAX: Final = 64  # uname(2)
MOST_TIMEOUT: Final = 2**31 - 1  # seconds
_NO_STRUCTURE: Final = bytes(range(256)).translate(None, b'"[]{}')
_SPACES: Final = " \t\n\r"


# --- bytes to a document


class _Twice(dict[str, object]):
    """An object in which `name` stands twice; where that is, is seen when all is read."""

    name = ""


class _Syntax:
    """How the interpreter's own scanner is to read, which `import json` would wrap: 12 ms, most of it `re`."""

    strict = True
    object_hook = None
    parse_float = float

    def __init__(self) -> None:
        self.twice = False

    def object_pairs_hook(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        marked, seen = _Twice(found), set[str]()
        for name, _ in pairs:
            if name in seen:
                marked.name = name
            seen.add(name)
        self.twice = True
        return marked

    @staticmethod
    def parse_int(digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            raise ConfigError("", f"invalid configuration: {shown(digits)} has {len(digits)} digits")
        return int(digits)

    @staticmethod
    def parse_constant(name: str) -> object:
        raise ConfigError("", f"invalid configuration: {name} is not JSON")


def parse(data: bytes) -> object:
    """The JSON document in `data`, UTF-8 of at most 16 MiB. Source: RFC 8259.

    Raises:
        ConfigError: it is none, is too large or too deep, or names a property twice.
    """
    if len(data) > MOST_BYTES:
        raise ConfigError("", f"invalid configuration: larger than {MOST_BYTES} bytes")
    _check_depth(data)
    syntax = _Syntax()
    try:
        text = data.decode("utf-8")
        document, end = _scan(text, syntax)
        rest = len(text) - len(text[end:].lstrip(_SPACES))
        if rest < len(text):
            raise StopIteration(rest)
    except StopIteration as stop:  # where a value was to begin, or nothing more was to come
        line, column = text.count("\n", 0, stop.value) + 1, stop.value - text.rfind("\n", 0, stop.value)
        raise ConfigError("", f"invalid configuration: not JSON at line {line}, column {column}") from None
    except ValueError as error:  # of UTF-8, or JSONDecodeError
        raise ConfigError("", f"invalid configuration: {error}") from None
    if syntax.twice:
        _refuse_twice(document)
    return document


def _scan(text: str, syntax: _Syntax) -> tuple[object, int]:
    """The first value in a text, and where it ends. Raises StopIteration, JSONDecodeError."""
    from _json import make_scanner

    scan = make_scanner(syntax)  # type: ignore[arg-type]  # any object with these attributes
    start = len(text) - len(text.lstrip(_SPACES))
    try:
        return scan(text, start)
    except SystemError:  # it wants to raise an error of this module, and does not import it; later CPythons do
        import json.decoder  # noqa: F401  # so that it is there

        return scan(text, start)


def _check_depth(data: bytes) -> None:
    """Refuse what would take the scanner, which calls itself, too deep: its brackets do not cancel out soon enough."""
    texts_and_brackets = data.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_STRUCTURE)
    brackets = b"".join(texts_and_brackets.split(b'"')[::2])
    for _ in range(MOST_NESTED):
        left = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(left) == len(brackets):
            break
        brackets = left
    if len(brackets) > MOST_NESTED:  # few that are left over are not deep; the scanner says better what is wrong
        raise ConfigError("", f"invalid configuration: nested more than {MOST_NESTED} deep, or not closed")


def _refuse_twice(document: object) -> None:
    nodes = [Node(document, "")]
    while nodes:
        node = nodes.pop()
        if isinstance(node.value, _Twice):
            raise node.error(f"invalid configuration: the property {shown(node.value.name)} is there twice")
        if isinstance(node.value, dict):
            nodes.extend(inner for _, inner in node.items())
        elif isinstance(node.value, list):
            nodes.extend(node.array())


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK)  # a FIFO must not hold us


def read_bundle(bundle: str, file: str = "config.json") -> bytes:
    """The bytes of a bundle's configuration: a directory, and the file's name in it.

    Raises:
        ConfigError: it cannot be read.
    """
    path = os.path.join(bundle, file)
    if "\0" in path:
        raise ConfigError("bundle", "holds a NUL")
    try:
        with open(path, "rb", opener=_open) as config:
            if not stat.S_ISREG(os.fstat(config.fileno()).st_mode):
                raise ConfigError("", f"{path}: not a regular file")
            return config.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError("", f"{path}: {reason_of(error)}") from None


def read_given(path: str) -> bytes:
    """The bytes of a file that a caller has named, or of a pipe that is one of its own descriptors.

    Raises:
        ConfigError: it cannot be read.
    """
    fd = _number_of(path)
    try:
        if fd < 0 or not os.get_inheritable(fd) or not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return read_bundle("", os.path.abspath(path))
        with open(fd, "rb", closefd=False) as pipe:
            return pipe.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError("", f"{path}: {reason_of(error)}") from None


def _number_of(path: str) -> int:
    """The descriptor that a path names; -1 when it names none."""
    directory, _, name = ("/dev/fd/0" if path == "/dev/stdin" else path).rpartition("/")
    numbered = directory in ("/dev/fd", "/proc/self/fd") and name.isascii() and name.isdecimal() and len(name) < 8
    return int(name) if numbered else -1


def load_bundle(bundle: str, file: str = "config.json") -> Config:
    """The configuration of a bundle.

    Raises:
        ConfigError: it cannot be read, or is wrong.
    """
    return read_config(parse(read_bundle(bundle, file)), bundle=bundle)


# --- the document


def read_config(document: object, *, bundle: str, mounts_apart: int = 0) -> Config:
    """A configuration document as records; relative paths are joined to `bundle`, and that to the current directory.

    Args:
        mounts_apart: how many of its mounts, the last ones, were given apart, and are counted from 0.

    Raises:
        ConfigError: with the JSON path of what is wrong.
    """
    if type(document) is not dict:
        raise ConfigError("", f"invalid configuration: must be an object, not {shown(document)}")
    node, warnings = Node(document, ""), list[str]()
    bundle = os.path.join("/" if bundle.startswith("/") else os.getcwd(), bundle)
    version = _read_version(node["ociVersion"])
    root = _read_root(node["root"], bundle)
    linux = read_linux(node["linux"])
    process = read_process(node["process"], warnings)
    if process:
        _check_mapped(node["process"]["user"], process, linux)
    kinds = {namespace.type for namespace in linux.namespaces}
    return Config(
        version=version,
        root=root,
        process=process,
        mounts=tuple([_read_mount(entry, bundle, warnings) for entry in _mounts(node["mounts"], mounts_apart)]),
        hostname=_read_host_name(node["hostname"], kinds),
        domainname=_read_host_name(node["domainname"], kinds),
        hooks=_read_hooks(node["hooks"]),
        annotations=tuple([(key, value.required().text()) for key, value in node["annotations"].items()]),
        linux=linux,
        warnings=tuple(warnings),
    )


def _read_version(node: Node) -> str:
    """A version as semver.org has it; what 1.x adds, older readers ignore."""
    version = node.text()
    numbers = version.partition("+")[0].partition("-")[0].split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise node.error(f"must be a version such as 1.3.0, not {shown(version)}")
    if numbers[0] != "1":
        raise node.error(f"must be 1.x.y of the runtime-spec, not {shown(version)}")
    return version


def _joined(node: Node, bundle: str) -> str:
    """A path that may be relative to the bundle, absolute and without "..": as runc has it, links are not asked."""
    return "/" + os.path.normpath(os.path.join(bundle, node.some_path())).lstrip("/")


def _read_root(node: Node, bundle: str) -> Root:
    return Root(path=_joined(node.required()["path"], bundle), readonly=node["readonly"].flag())


def _mounts(node: Node, apart: int) -> list[Node]:
    """The entries, the last of them counted anew."""
    entries = node.array()
    before = len(entries) - apart
    return [*entries[:before], *Node([entry.value for entry in entries[before:]], node.path).array()]


def _read_mount(node: Node, bundle: str, warnings: list[str]) -> Mount:
    """An entry of `mounts`; what its options mean is judged when they are folded."""
    destination = node["destination"].some_path()
    if not destination.startswith("/"):
        warnings.append(f"{node.path}.destination: {shown(destination)} is not absolute, / is put before it")
    options, kind, source = node["options"].os_texts(), node["type"].line(), node["source"].os_text("")
    if source and (kind == "bind" or "bind" in options or "rbind" in options):
        source = _joined(node["source"], bundle)
    uid_map, gid_map = read_id_maps(node["uidMappings"]), read_id_maps(node["gidMappings"])
    if bool(uid_map) != bool(gid_map):
        missing, there = ("gidMappings", "uidMappings") if uid_map else ("uidMappings", "gidMappings")
        raise node[missing].error(f"is missing: it goes with {there}")
    destination = "/" + os.path.normpath(f"/{destination}").lstrip("/")
    return Mount(
        destination=destination, type=kind, source=source, options=options, uid_map=uid_map, gid_map=gid_map,
        where=node.path,
    )  # fmt: skip


def _read_host_name(node: Node, kinds: set[str]) -> str:
    name = node.text("")
    if len(name.encode()) > HOST_NAME_MAX:
        raise node.error(f"is longer than {HOST_NAME_MAX} bytes")
    if name and "uts" not in kinds:
        raise node.error("needs a uts namespace: it would rename the host")
    return name


def _check_mapped(node: Node, process: Process, linux: Linux) -> None:
    """Who the process is must be someone in its new user namespace: setuid(2) would fail with EINVAL."""

    def check(inner: Node, number: int, lines: tuple[IdMap, ...], name: str) -> None:
        if not any(line.container <= number < line.container + line.size for line in lines):
            raise inner.error(f"{number} is not among linux.{name}")

    if not linux.makes("user"):
        return
    check(node["uid"], process.user.uid, linux.uid_map, "uidMappings")
    check(node["gid"], process.user.gid, linux.gid_map, "gidMappings")
    for entry, number in zip(node["additionalGids"].array(), process.user.additional_gids):
        check(entry, number, linux.gid_map, "gidMappings")


# --- hooks


def _read_hook(node: Node) -> Hook:
    return Hook(
        path=node["path"].path_text(),
        args=read_args(node["args"]) if node["args"].array() else (),
        env=read_env(node["env"]),
        timeout=node["timeout"].optional_integer(1, MOST_TIMEOUT),
    )


def _read_hooks(node: Node) -> Hooks:
    hooks: dict[str, Any] = {
        field: tuple([_read_hook(entry) for entry in node[name].array()])
        for field, name in (
            ("prestart", "prestart"),
            ("create_runtime", "createRuntime"),
            ("create_container", "createContainer"),
            ("start_container", "startContainer"),
            ("poststart", "poststart"),
            ("poststop", "poststop"),
        )
    }
    return Hooks(**hooks)
