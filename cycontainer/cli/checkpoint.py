"""The verb `checkpoint`: save a container's processes to files. Face."""

from __future__ import annotations

from cycontainer.cli.saving import OPTIONS, image_path, options_of
from cycontainer.cli.verb import ONE_ID, Arguments, Option, Verb
from cycontainer.lifecycle import Container

VERB = Verb(
    usage="ID",
    help="save a container to files, and remove it unless it is left running; restore brings it back",
    example="cycontainer checkpoint --image-path /var/tmp/web --leave-running web",
    operands=ONE_ID,
    options=(
        *OPTIONS,
        Option(names=("--parent-path",), value="DIR", help="an earlier pre-dump, relative to the image directory"),
        Option(names=("--leave-running",), help="it runs on"),
        Option(names=("--tcp-skip-in-flight",), help="connections that are just being made are left out"),
        Option(names=("--link-remap",), help="open files that are deleted but have another name are saved"),
        Option(names=("--status-fd",), value="FD", help="a byte 0 goes there when lazy pages can be fetched"),
        Option(names=("--page-server",), value="ADDRESS:PORT", help="the criu page-server that takes the memory"),
        Option(names=("--pre-dump",), help="save the memory only; it runs on"),
        Option(names=("--without-exec",), help="processes that came in by exec are not saved; else they are an error"),
    ),
)
FLAGS = ("leave-running", "tcp-skip-in-flight", "link-remap", "pre-dump", "without-exec")


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    container = Container.load(arguments.operands[0], root=arguments.root)
    container.checkpoint(
        image_path(arguments),
        **options_of(arguments, *FLAGS),
        parent_path=arguments.value("--parent-path"),
        page_server=arguments.value("--page-server"),
        status_fd=arguments.number("--status-fd", 0, 1 << 20) if arguments.given("--status-fd") else -1,
    )
    if not arguments.given("--leave-running") and not arguments.given("--pre-dump"):
        container.delete(force=True)  # whoever runs it in the foreground may have done it already
    return 0
