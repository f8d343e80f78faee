"""The plans of what `run()` is asked for: compiled, and kept by all that they depend on. Face."""

from __future__ import annotations

import os

from cycontainer._arguments import private_directories
from cycontainer._clone import HeldSignals
from cycontainer.compile import Style, compile_plan
from cycontainer.errors import ConfigError
from cycontainer.host import current
from cycontainer.launch import not_launched
from cycontainer.mount_options import ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY
from cycontainer.namespaces import scope_of
from cycontainer.record import Record
from cycontainer.sandbox import Options, document, overlay
from cycontainer.sources import can_use_pad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

    from cycontainer._unit_run import UnitWish
    from cycontainer.config import Config
    from cycontainer.host import Host
    from cycontainer.plan import Plan


class Prepared(Record):
    """A compiled container, and what it depends on."""

    plan: Plan
    host: Host
    config: Any  # the caller's dict as it was, to see that it has not changed


_prepared: dict[tuple[object, ...], Prepared] = {}
MOST_PREPARED: Final = 256
_host: Host | None = None  # the last one: of equal ones the first, so that its identity is a key


def configured(
    options: Options,
    args: tuple[str, ...],
    mounts: list[dict[str, Any]],
    config: dict[str, Any] | None,
    host: Host,
) -> tuple[Config, Style]:
    """What is to be compiled. Raises ConfigError."""
    from cycontainer.read_config import read_config

    privileged = host.privileged and host.uid == 0
    attributes = ATTR_NOSUID | ATTR_NODEV
    if config is not None:
        document_ = overlay(config, options, list(args), mounts)
        checked: Config = read_config(document_, bundle=_working_directory(), mounts_apart=len(mounts))
        _check_served(checked, options)
        attributes = 0
    else:
        found = document(options, list(args), mounts, privileged=privileged, host=host)
        checked = _with_seccomp(read_config(found, bundle="/", mounts_apart=len(mounts)))
        attributes |= ATTR_RDONLY if options.rootfs is None else 0
    # of the host's root nothing is to become ours; the root of a user namespace has but itself
    map_root = options.user_namespace and options.rootfs is not None and host.initial_user_namespace
    style = Style(
        keep_init=options.keep_init, every_cgroup=False, root_attributes=attributes, map_root=map_root,
        supervised=options.supervised, pad=True, work=options.work,
    )  # fmt: skip
    return checked, style


def _check_served(config: Config, options: Options) -> None:
    """Refuse what only a `Container` does, and what the configuration would have to say itself."""
    from cycontainer.config import Hooks
    from cycontainer.confinement import notifies

    if notifies(config.linux.seccomp):
        raise ConfigError("linux.seccomp", "run() passes no listener on; `supervisor` answers system calls")
    if config.hooks != Hooks():
        raise ConfigError("hooks", "run() calls none; a Container does")
    if config.process is not None and config.process.terminal:
        raise ConfigError("process.terminal", "run() gives none; a Container does")
    if options.user_namespace and "user" not in [namespace.type for namespace in config.linux.namespaces]:
        raise ConfigError("user_namespace", "with `config`, its linux.namespaces and mappings say so")


def _with_seccomp(config: Config) -> Config:
    from cycontainer.seccomp_profile import DEFAULT

    return config.replace(linux=config.linux.replace(seccomp=DEFAULT))


def _working_directory() -> str:
    """What a configuration's relative paths start from; when it is gone, a path that leads to what is gone."""
    try:
        return os.getcwd()
    except OSError:
        return "/proc/self/cwd"


def plan_for(
    options: Options, args: tuple[str, ...], mounts: list[dict[str, Any]], config: dict[str, Any] | None
) -> Prepared:
    """The compiled plan, kept by all that it depends on; args and env are filled in at each launch."""
    global _host
    host, last = current(), _host
    if last is not None and last == host:
        host = last
    else:
        _host = host
    if options.rootfs is None and config is None:
        options = options.replace(private=private_directories())
    key = depends_on(options, mounts, config, host)
    kept = _prepared.get(key)
    if kept is not None and kept.config == config:
        return kept
    checked, style = configured(options, args, mounts, config, host)
    plan = _compiled(checked, host, style)
    if len(_prepared) >= MOST_PREPARED:
        for oldest in tuple(_prepared)[:1]:
            _prepared.pop(oldest, None)  # another thread may have been faster
    if config is not None:
        import copy

        config = copy.deepcopy(config)
    made = _prepared[key] = Prepared(plan=plan, host=host, config=config)
    return made


def _compiled(config: Config, host: Host, style: Style) -> Plan:
    """The plan; a process's first is compiled while an init makes the launch pad. Raises ConfigError, LaunchError."""
    if not can_use_pad(config, host, scope_of(config, host, first_slot=0)):
        return compile_plan(config, host, style)
    from cycontainer.launch_pad import MadeMeanwhile

    try:
        with HeldSignals(), MadeMeanwhile():
            return compile_plan(config, host, style)
    except OSError as error:
        raise not_launched(error) from error


def unit_wish(
    options: Options, args: tuple[str, ...], mounts: list[dict[str, Any]], config: dict[str, Any] | None
) -> UnitWish:
    """What a run comes to whose cgroup systemd makes. Raises ConfigError."""
    from cycontainer._unit_run import UnitWish

    if options.rootfs is None and config is None:
        options = options.replace(private=private_directories())
    checked, style = configured(options, args, mounts, config, current())
    return UnitWish(config=checked, style=style)


def depends_on(
    options: Options, mounts: Sequence[Mapping[str, Any]], config: dict[str, Any] | None, host: Host
) -> tuple[object, ...]:
    """All that a plan comes of, but what is in the caller's own configuration: that is compared."""
    linux = config.get("linux") if isinstance(config, dict) else None
    maker = None
    if config is None or (isinstance(linux, dict) and "seccomp" in linux):
        from cycontainer._seccomp import version

        maker = version()
    place = _working_directory() if config is not None else ""  # of relative paths
    caller = None if config is None else id(config)
    try:
        more = repr(mounts) if mounts else ""
    except RecursionError:
        raise ConfigError("mounts", "is nested too deep") from None
    return options, more, caller, place, id(host), maker
