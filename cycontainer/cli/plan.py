"""The verb `plan`: print all that a bundle's container will do to the kernel, a step a line."""

from __future__ import annotations

from cycontainer.cli.verb import Arguments, Option, Verb
from cycontainer.compile import compile_plan
from cycontainer.errors import printable
from cycontainer.host import current
from cycontainer.read_config import load_bundle

VERB = Verb(
    usage="BUNDLE",
    help="print the steps that a bundle's configuration compiles to, in order; nothing is done",
    example="cycontainer plan ./bundle",
    operands=(1, 1),
    options=(Option(names=("--json",), help="as JSON: a list of objects with step and attempt"),),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    plan = compile_plan(load_bundle(arguments.operands[0]), current())
    if arguments.given("--json"):
        import json

        print(json.dumps([{"step": number, "attempt": text} for number, text in enumerate(plan.attempts, 1)], indent=1))
        return 0
    for number, text in enumerate(plan.attempts, 1):
        print(f"{number:4} {printable(text)}")
    return 0
