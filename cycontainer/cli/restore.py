"""The verb `restore`: bring a saved container back. Face."""

from __future__ import annotations

import os

from cycontainer.cli.saving import OPTIONS, image_path, options_of
from cycontainer.cli.verb import ONE_ID, Arguments, Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.lifecycle import Container

VERB = Verb(
    usage="ID",
    help="bring a container back from the files of checkpoint, and return its program's exit status",
    example="cycontainer restore --image-path /var/tmp/web --bundle ./bundle --detach web",
    operands=ONE_ID,
    options=(
        Option(names=("--bundle", "-b"), value="DIR", help="the bundle; the current directory when none is given"),
        Option(names=("--detach", "-d"), help="return when it runs"),
        Option(names=("--pid-file",), value="FILE", help="write the first process's pid there"),
        Option(names=("--console-socket",), value="PATH", help="send the terminal's master to this socket"),
        Option(names=("--no-subreaper",), help="leave orphans of the container to the system"),
        Option(names=("--no-pivot",), help="accepted: how the root is changed is criu's to decide"),
        *OPTIONS,
        Option(names=("--lsm-profile",), value="PROFILE", help="selinux:LABEL or apparmor:NAME for its processes"),
        Option(names=("--lsm-mount-context",), value="LABEL", help="the SELinux label of its mounts"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    if arguments.given("--detach"):
        _restore(arguments)
        return 0
    from cycontainer.cli.foreground import Foreground

    container = None
    try:
        with Foreground(adopt=not arguments.given("--no-subreaper")) as foreground:
            container = _restore(arguments)
            assert container.process is not None  # this call made it
            foreground.follow(container.process)
            status = foreground.wait()
    except BaseException:  # out of the foreground, which would reap the hooks of its end
        if container is not None:
            container.delete(force=True)
        raise
    container.delete(force=True, warn=arguments.warn)
    return status


def _restore(arguments: Arguments) -> Container:
    from cycontainer.cli.bundle import path_of  # engines probe this verb by words that are off: that costs little
    from cycontainer.creation import Wishes
    from cycontainer.criu.container import bring_back_bundle
    from cycontainer.criu.options import RestoreOptions
    from cycontainer.lifecycle import Container
    from cycontainer.read_config import read_bundle

    bundle = os.path.abspath(arguments.value("--bundle", "."))
    container = Container.handle(arguments.operands[0], root=arguments.root)
    wishes = Wishes(
        bundle=bundle,
        console_socket=path_of(arguments, "--console-socket"),
        pid_file=path_of(arguments, "--pid-file"),
        detached=arguments.given("--detach"),
        cgroup_manager=arguments.cgroup_manager,
        warn=arguments.warn,
    )
    options: RestoreOptions = RestoreOptions(
        **options_of(arguments, "tcp-close"),
        lsm_profile=arguments.value("--lsm-profile"),
        lsm_mount_context=arguments.value("--lsm-mount-context"),
    )
    document = read_bundle(bundle, "config.json")
    container.process = bring_back_bundle(
        container.root, container.id, document, image_path(arguments), options, wishes=wishes
    )
    return container
