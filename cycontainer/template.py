"""Template: a container that is prepared once and launched many times. Face."""

from __future__ import annotations

from cycontainer._arguments import (
    check_count,
    check_flag,
    check_keywords,
    check_work_size,
    mount_entries,
    private_directories,
    program_arguments,
    seconds,
)
from cycontainer._plans import configured
from cycontainer._request import OF_A_CALL, OF_AN_OUTLINE, Request, call, container_options
from cycontainer._running import finish
from cycontainer._spawned import spawned
from cycontainer.errors import ConfigError, Error
from cycontainer.host import current
from cycontainer.launch import not_launched
from cycontainer.sandbox import ENVIRONMENT
from cycontainer.stock import Stock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from typing import Any, Final, Self, Unpack

    from cycontainer._request import CallKeywords, Outline
    from cycontainer._result import Result
    from cycontainer._spawned import Spawned
    from cycontainer._work import Exchange

PLACEHOLDER: Final = ("true",)  # compiled plans are of any program


class Template:
    """A container prepared once: checked, compiled, its file tree made, and then launched many times.

        with Template(rootfs="/srv/image", memory=256 << 20, networks=8) as judge:
            results = [judge.run(["/bin/solution"], input=case) for case in cases]

    Each launch is a container of its own, in new namespaces of every kind, as `run()` makes them. What its containers
    have in common none of them can write: the root, bind mounts, empty directories, and /dev, which cannot be written
    here. Their /proc, /sys, terminals, shared memory, message queues, /tmp and every other writable file system are
    each container's own. It shows the root file system as it is mounted when the template is made: what is mounted on
    the host later is not in it.

    That takes the machine's root, and a container without a user namespace and without propagation of mounts. For
    others all is prepared but the tree (`shared` is False).

    Attributes:
        shared: whether the file tree is made already.
    """

    _warm = False  # its containers wait for a program
    _tied = False  # they end with the thread that has launched them
    _name = "Template"  # by which the caller knows it

    def __init__(
        self, *, networks: int = 0, cgroups: int = 0, reuse: bool = False, **keywords: Unpack[Outline]
    ) -> None:
        """Prepare it.

        Args:
            networks: how many network namespaces a thread keeps ready.
            cgroups: how many cgroups it keeps ready, where there are limits; with either it removes what is used, too.
            reuse: these networks are used again, one container after the other; `Pool` tells what that means.
            keywords: those of `run()` that say what the container is: rootfs, cwd, user, hostname, memory, cpus, pids,
                network, mounts, read_only, masked_paths, user_namespace, init, config. With `work_size` its containers
                take files.

        Raises:
            ConfigError: an argument is wrong; it names which.
            LaunchError: the file tree could not be made; nothing is left.
        """
        check_keywords(self._name, keywords, OF_AN_OUTLINE)
        check_count("networks", networks, 0, needed=True)
        check_count("cgroups", cgroups, 0, needed=True)
        check_flag("reuse", reuse)
        outline: dict[str, Any] = {**keywords}
        mounts, config = mount_entries(outline.pop("mounts", ())), outline.pop("config", None)
        self._work = outline.pop("work_size", 0)
        if type(self._work) is not int or self._work:
            check_work_size(self._work)
        self._environment = ENVIRONMENT if config is None else None
        self._empty: Exchange | None = None
        host = current()
        if self._work:
            from cycontainer._work import PLACE, exchange

            asked = exchange(None, ("*",), self._work)
            self._empty = asked and asked.replace(collect=())
            if config is None and outline.get("cwd") is None:
                outline["cwd"] = PLACE
        options = container_options(work=self._work, **outline)
        if options.rootfs is None and config is None:
            options = options.replace(private=private_directories())
        checked, style = configured(options, PLACEHOLDER, mounts, config, host)
        self._layout, self._closed = host.cgroups, False
        style = style.replace(warm=self._warm, tied=self._tied)
        try:
            self._stock = Stock(checked, host, style, networks=networks, cgroups=cgroups, reuse=reuse)
        except OSError as error:
            raise not_launched(error) from error

    @property
    def shared(self) -> bool:
        return self._stock.shared

    def request(
        self, args: Sequence[str | PathLike[str]], verb: str = "run", **keywords: Unpack[CallKeywords]
    ) -> Request:
        """One launch of it, checked. `verb`: the method that asks. Raises ConfigError, TypeError, Error."""
        check_keywords(f"{self._name}.{verb}", keywords, OF_A_CALL)
        if self._closed:
            raise Error(f"the {self._name.lower()} is closed")
        how: dict[str, Any] = {**keywords}
        files, collect = how.pop("files", None), how.pop("collect", ())
        exchanged = self._empty if files is None and not collect else self._exchange(files, collect)
        return Request(
            plan=self._stock.plan,
            layout=self._layout,
            supervisor=None,
            exchange=exchanged,
            stock=self._stock,
            **call(program_arguments(args), environment=self._environment, **how),
        )

    def _exchange(self, files: Mapping[str, bytes | str] | None, collect: Sequence[str]) -> Any:
        from cycontainer._work import exchange

        if not self._work:
            raise ConfigError("files" if files is not None else "collect", "takes a template with work_size")
        return exchange(files, collect, self._work)

    def run(
        self, args: Sequence[str | PathLike[str]], *, check: bool = False, **keywords: Unpack[CallKeywords]
    ) -> Result:
        """Run a program in a new container of it, and wait for it.

        Args:
            args: the program and its arguments.
            check: raise RunError when it fails.
            keywords: those of `run()` that say what is run, and how: input, stdin, stdout, stderr, capture_output,
                text, encoding, errors, timeout, env, output_limit, files, collect.

        Raises:
            As `run()`; and Error: it is closed.
        """
        check_flag("check", check)
        result = finish(self.request(args, **keywords))
        if check:
            result.check_returncode()
        return result

    def spawn(self, args: Sequence[str | PathLike[str]], **keywords: Unpack[CallKeywords]) -> Spawned:
        """Start a program in a new container of it, and go on; see `cycontainer.spawn`."""
        return spawned(self.request(args, "spawn", **keywords))

    def fill(self, timeout: float = 10.0) -> bool:
        """Wait until all that it keeps ready is made, so many seconds; whether it is. Raises ConfigError."""
        return self._stock.fill(seconds("timeout", timeout))

    def close(self) -> None:
        """Let go of all that is ready. Containers that run go on."""
        self._closed = True
        self._stock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
