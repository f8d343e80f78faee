"""The `cycontainer` command: global options, the verb, and the one place where errors are printed."""

from __future__ import annotations

import sys

from cycontainer.cli.verb import Option, UsageError, help_text, read
from cycontainer.errors import Error, ProgramError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

VERBS: Final = ("plan", "run", "spec")
GLOBAL: Final = (
    Option(names=("--root",), value="DIR", help="where states are kept"),
    Option(names=("--debug",), help="say more"),
    Option(names=("--log",), value="FILE", help="write errors there as well"),
    Option(names=("--log-format",), value="FORMAT", help="text or json"),
    Option(names=("--version", "-v"), help="print the version"),
    Option(names=("--help", "-h"), help="print this"),
)


def _log(path: str, form: str, message: str) -> None:
    """One line in the log that engines read."""
    import time

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if form == "json":
        import json

        line = json.dumps({"level": "error", "msg": message, "time": now})
    else:
        line = f'time="{now}" level=error msg={message!r}'
    with open(path.removeprefix("file:"), "a") as file:
        file.write(f"{line}\n")


def _usage() -> str:
    lines = ["usage: cycontainer [options] VERB ...", "", f"verbs: {', '.join(VERBS)}", "", "options:"]
    lines += [f"  {', '.join(option.names)} {option.value}".rstrip().ljust(28) + option.help for option in GLOBAL]
    return "\n".join(lines)


def _dispatch(name: str, words: list[str], root: str | None) -> int:
    if name not in VERBS:
        raise UsageError(f"no such verb: {name}; one of {', '.join(VERBS)}")
    module = __import__(f"cycontainer.cli.{name}", fromlist=["main"])
    if any(word in ("--help", "-h") for word in words):
        print(help_text(name, module.VERB))
        return 0
    arguments, _ = read(module.VERB.options, words)
    arguments.root = root
    least, most = module.VERB.operands
    if not least <= len(arguments.operands) <= most:
        raise UsageError(f"usage: cycontainer {name} [options] {module.VERB.usage}")
    status: int = module.main(arguments)
    return status


def main(words: list[str]) -> int:
    """The whole command; returns the exit status."""
    log, form = "", "text"
    try:
        options, rest = read(GLOBAL, words, stop_at_operand=True)
        log, form = options.value("--log"), options.value("--log-format", "text")
        if options.given("--version"):
            from cycontainer.version import VERSION

            print(f"cycontainer version {VERSION}\nspec: 1.3.0")
            return 0
        if options.given("--help") or not rest:
            print(_usage())
            return 0 if options.given("--help") else 1
        return _dispatch(rest[0], rest[1:], options.value("--root") or None)
    except Error as error:
        status, message = error.status if isinstance(error, ProgramError) else 1, str(error)
    except OSError as error:
        status, message = 1, f"{error.filename or ''}: {error.strerror}"
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    except Exception as error:  # a defect of ours: still one line, no traceback
        status, message = 1, f"defect: {type(error).__name__}: {error}"
    print(f"cycontainer: {message}", file=sys.stderr)
    if log:
        _log(log, form, message)
    return status


def run_command() -> None:
    """The entry point of the installed command."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run_command()
