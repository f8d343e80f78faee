"""The verb `list`: the containers below the root directory. Face."""

from __future__ import annotations

from cycontainer.cli.summary import summary
from cycontainer.cli.verb import Arguments, Option, Verb
from cycontainer.errors import ContainerNotFound, StateError, printable
from cycontainer.json_text import to_json
from cycontainer.lifecycle import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FORMATS = ("table", "json")
VERB = Verb(
    usage="",
    help="print a line for each container",
    example="cycontainer list --format json",
    operands=(0, 0),
    options=(
        Option(names=("--format", "-f"), value="FORMAT", choices=FORMATS, help="table or json"),
        Option(names=("--quiet", "-q"), help="print the ids only"),
    ),
)
TITLES = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
LEAST_WIDTH, GAP = 12, 3  # of a column, in letters


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    form = arguments.choice("--format", FORMATS)
    containers = Container.list(root=arguments.root)
    if arguments.given("--quiet"):
        print("".join([f"{container.id}\n" for container in containers]), end="")
        return 0
    found = list(_summaries(containers, arguments))
    print(to_json(found) if form == "json" else _table(found))
    return 0


def _summaries(containers: Any, arguments: Arguments) -> Iterator[dict[str, Any]]:
    """What `state` says of each; of a damaged one a warning, so that it does not hide the others."""
    for container in containers:
        try:
            yield summary(container)
        except ContainerNotFound:
            continue  # deleted meanwhile, or just being made
        except StateError as error:
            arguments.warn(str(error))


def _table(found: list[dict[str, Any]]) -> str:
    rows = [TITLES]
    for each in found:
        bundle = printable(each["bundle"])
        rows.append((each["id"], str(each["pid"]), each["status"], bundle, each["created"], each["owner"]))
    widths = [max(LEAST_WIDTH, GAP + max(map(len, column))) for column in zip(*rows)]
    return "\n".join("".join(map(str.ljust, row, widths)).rstrip() for row in rows)
