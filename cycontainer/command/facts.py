"""Writes facts.h: what the compiled command and the Python side must agree on, taken from the latter at build time.

    python cycontainer/command/facts.py FILE

Texts, tables and layouts have their place in the Python modules; here they only change their form. It needs no
compiled module.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from cycontainer import (  # noqa: E402  # the path comes first
    cgroup_place,
    deletion,
    lifecycle,
    process_stat,
    starting,
    state,
    state_text,
    tables,
)
from cycontainer.cli import __main__ as command  # noqa: E402
from cycontainer.cli import delete, kill, list, pause, report, resume, start, summary  # noqa: E402
from cycontainer.cli import state as state_verb  # noqa: E402
from cycontainer.cli.texts import message_of, reason  # noqa: E402
from cycontainer.cli.verb import Option  # noqa: E402
from cycontainer.errors import ContainerError, ContainerNotFound, ContainerNotRunning, Error  # noqa: E402
from cycontainer.json_text import to_json  # noqa: E402

VERBS = {
    "state": state_verb.VERB, "list": list.VERB, "kill": kill.VERB, "start": start.VERB,
    "delete": delete.VERB, "pause": pause.VERB, "resume": resume.VERB,
}  # fmt: skip
WORDS = tuple(key for key in state_text.TEXTS if key not in state_text.DEFAULTS)


def c_text(text: str) -> str:
    """A C string."""
    return json.dumps(text)


def texts(names: Sequence[str | None]) -> str:
    return "{" + ", ".join("0" if name is None else c_text(name) for name in names) + "}"


def form(verb: str, error: Error, places: int = 1) -> str:
    """The text of an error that was made with "%s" in its places, as a format."""
    text = message_of(verb, error)
    assert text.count("%s") == text.count("%") == places, text
    return c_text(text)


def option_id(name: str) -> str:
    return "OPTION" + name.lstrip("-").join(("_", "")).replace("-", "_").upper()


def option_table(options: tuple[Option, ...]) -> str:
    """{name, its number, whether it takes a value} for every name of every option."""
    rows = [
        f"{{{c_text(name)}, {option_id(option.names[0])}, {int(bool(option.value))}}}"
        for option in options
        for name in option.names
    ]
    return "{" + ", ".join([*rows, "{0, 0, 0}"]) + "}"


def options() -> Iterator[str]:
    every = (*command.GLOBAL, *(option for verb in VERBS.values() for option in verb.options))
    names = dict.fromkeys(option_id(option.names[0]) for option in every)
    yield f"enum option_id {{ {', '.join(names)}, OPTIONS }};"
    yield f"static const struct option GLOBAL_OPTIONS[] = {option_table(command.GLOBAL)};"
    yield f"#define VERBS(each) {' '.join(f'each({name}, {name.upper()})' for name in VERBS)}"
    for name, verb in VERBS.items():
        yield f"static const struct option {name.upper()}_OPTIONS[] = {option_table(verb.options)};"
        yield f"enum {{ {name.upper()}_LEAST = {verb.operands[0]}, {name.upper()}_MOST = {verb.operands[1]} }};"


def log_line(kind: str, name: str) -> Iterator[str]:
    """A line of the log as a format of the text and the time; `kind` is one of report.FORMATS."""
    line = report._line(kind, "error", "@text@").replace('"@text@"', "%s")
    yield f"#define {name} {c_text(re.sub(r'[0-9]{4}-[0-9T:-]+Z', '%s', line))}"
    yield f"#define {name}_TIME_FIRST {int(line.index('time') < line.index('%s'))}"


def document(name: str, indent: int | None, annotations: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """What `state` prints, as pieces: a text, and the field that follows it."""
    fields = {field: f"@{field}@" for field in WORDS}
    made = state_text.State(**fields, owner=0, pid=987654321, annotations=annotations)  # type: ignore[arg-type]  # all texts
    text = to_json(summary.document(made, "@status@", "@owner@"), indent=indent).replace("987654321", '"@pid@"')
    *parts, end = re.split(r'("@\w+@")', text)
    rows = [f"{{{c_text(before)}, FIELD_{field.strip(chr(34)).strip('@').upper()}}}" for before, field in pairs(parts)]
    yield f"static const struct piece {name}[] = {{{', '.join(rows)}, {{{c_text(end)}, FIELD_END}}}};"


def pairs(parts: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(parts[::2], parts[1::2])


def documents() -> Iterator[str]:
    two = (("@key@", "@value@"), ("@next_key@", "@next_value@"))
    fields = ("end", *WORDS, "pid", "status", "owner", "key", "value", "next_key", "next_value")
    yield f"#define SHOWN_TEXTS(each) {' '.join(f'each({key}, FIELD_{key.upper()})' for key in WORDS)}"
    yield f"enum field {{ {', '.join(f'FIELD_{field.upper()}' for field in fields)} }};"
    yield "struct piece { const char *before; enum field field; };"
    for name, indent in (("LINES", 2), ("ONE_LINE", None)):
        yield from document(f"PLAIN_IN_{name}", indent, ())
        yield from document(f"ANNOTATED_IN_{name}", indent, two)


def keys(name: str, found: tuple[str, ...]) -> str:
    """For each key of a state's lines its name, and whether it has to be there."""
    return f"#define {name}(each) {' '.join(f'each({key}, {int(key not in state_text.DEFAULTS)})' for key in found)}"


def escapes() -> str:
    """{letter, what it stands for}."""
    found = {"\\": "\\", **state_text.ESCAPES}
    assert all(len(plain) <= 1 for plain in found.values())  # undone where it stands, a word gets no longer
    return "{" + ", ".join(f"{{{ord(letter)}, {c_text(plain)}}}" for letter, plain in found.items()) + "}"


def state_file() -> Iterator[str]:
    yield f"#define STATE_FILE {c_text(state.FILE)}"
    yield f"#define CONFIG_FILE {c_text(state.CONFIG)}"
    yield f"#define GO_FILE {c_text(state.GO)}"
    yield f"#define OUTCOME_FILE {c_text(state.OUTCOME)}"
    yield f"#define NOTIFY_DIRECTORY {c_text(state.NOTIFY)}"
    yield f"#define STATE_MAGIC {c_text(state_text.MAGIC)}"
    yield f"#define STATE_VERSION {c_text(state_text.VERSION)}"
    yield f"static const char *const STATE_END[] = {texts(state_text.END)};"
    yield f"enum {{ STATE_BYTES = {state.MOST_BYTES}, ID_LETTERS = {state.MOST_LETTERS} }};"
    yield f"static const char ID_ALPHABET[] = {c_text(''.join(sorted(state.ID_LETTERS)))};"
    yield f"static const char *const STATUSES[] = {texts(state.STATUSES)};"
    yield f"enum status {{ {', '.join(name.upper() for name in state.STATUSES)} }};"
    yield keys("STATE_TEXTS", state_text.TEXTS)
    yield keys("STATE_NUMBERS", state_text.NUMBERS)
    repeated = [f"each({key}, {words})" for key, words in state_text.LENGTHS.items()]
    yield f"#define STATE_REPEATED(each) {' '.join(repeated)}"
    yield f"enum {{ MOST_WORDS = {1 + max(state_text.LENGTHS.values())} }};"
    yield f"static const struct escape ESCAPES[] = {escapes()};"
    yield f"static const char *const V1_FROZEN[] = {texts((*cgroup_place.V1_FROZEN, None))};"
    yield f"static const char *const V2_FROZEN[] = {texts((*cgroup_place.V2_FROZEN, None))};"
    yield f"static const char *const OOM_FILES[] = {texts((*(files[1] for files in cgroup_place.MEMORY_FILES), None))};"
    yield f"#define INIT_NAME {c_text(state.INIT_NAME.decode())}"
    yield f"#define DEAD_STATES {c_text(process_stat.DEAD)}"
    yield f"#define DEFAULT_ROOT {c_text(state.ROOT)}"
    yield f"#define ROOT_NAME {c_text(os.path.basename(state.ROOT))}"


def messages() -> Iterator[str]:
    yield f"#define VERSION_TEXT {c_text(command._version() + chr(10))}"
    yield f"#define NOT_FOUND {form('state', ContainerNotFound('%s'))}"
    yield f"#define NOT_RUNNING {form('kill', ContainerNotRunning('%s'))}"
    yield f"#define NOT_PAUSED {form('resume', ContainerError('%s', lifecycle.NOT_PAUSED))}"
    yield f"#define NOT_CREATED {form('start', ContainerError('%s', lifecycle.NOT_CREATED.format('%s')), 2)}"
    yield f"#define PAUSED_START {form('start', ContainerError('%s', lifecycle.PAUSED_START))}"
    yield f"#define STILL_RUNS {form('delete', ContainerError('%s', deletion.STILL_RUNS.format('%s')), 2)}"
    yield f"#define INIT_DIED {form('start', starting.init_has_died(), 0)}"
    yield f"#define INIT_OOM_KILLED {form('start', starting.init_has_died(out_of_memory=True), 0)}"
    yield f"#define INIT_STUCK {form('start', starting.init_is_stuck(), 0)}"
    failed = message_of("start", starting.program_error(0, errno.ENOENT, "%s"))
    yield f"#define PROGRAM_FAILED {c_text(failed.replace(reason(errno.ENOENT), '%s'))}"
    yield f"static const char *const MANAGERS[] = {texts(command.MANAGERS)};"
    for name, text in zip(("TEXT", "JSON"), report.FORMATS, strict=True):
        yield f"#define LOG_{name} {c_text(text)}"
    yield f"#define LOG_TIME {c_text(report.TIME)}"
    yield f"#define LOG_SCHEME {c_text(report.SCHEME)}"
    yield f"#define NO_LOG {c_text(report.NO_LOG.format('%s', '%s'))}"
    yield f"#define PREFIX {c_text(report.PREFIX)}"
    yield from log_line("text", "TEXT_LINE")
    yield from log_line("json", "JSON_LINE")


def listing() -> Iterator[str]:
    yield f"static const char *const TITLES[] = {texts(list.TITLES)};"
    for name, text in zip(("TABLE", "JSON"), list.FORMATS, strict=True):
        yield f"#define LIST_{name} {c_text(text)}"
    yield f"#define ROOT_USER {c_text(summary.ROOT)}"
    yield f"#define NAMELESS_USER {c_text(summary.NAMELESS.format('%u'))}"
    yield f"enum {{ LEAST_WIDTH = {list.LEAST_WIDTH}, GAP = {list.GAP} }};"


def starting_and_ending() -> Iterator[str]:
    """What an init says, _steps.pxd's Message; and how long things may take."""
    ints, longs = re.fullmatch(r"(\d)i(\d)l", starting.MESSAGE).groups()  # type: ignore[union-attr]  # it has this form
    assert int(ints) == len(starting.MESSAGE_INTS)
    yield f"struct message {{ int {', '.join(starting.MESSAGE_INTS)}; long more[{longs}]; }};"
    yield f"enum {{ START_PATIENCE_MS = {starting.PATIENCE_MS}, KILL_PATIENCE_US = {int(deletion.PATIENCE * 1e6)} }};"


def signals() -> Iterator[str]:
    yield f"#define DEFAULT_SIGNAL {c_text(kill.DEFAULT)}"
    rows = [f"{{{c_text(name)}, {number}}}" for name, number in tables.SIGNALS.items()]
    yield f"static const struct name_of_signal SIGNALS[] = {{{', '.join(rows)}}};"
    yield f"enum {{ FIRST_REAL_TIME = {tables.SIGRTMIN}, LAST_REAL_TIME = {tables.SIGRTMAX} }};"


def interpreter() -> Iterator[str]:
    """The oldest that the package is for."""
    with open(f"{ROOT}/pyproject.toml", "rb") as file:
        least = tomllib.load(file)["project"]["requires-python"]
    yield f"enum {{ OLDEST_MINOR = {int(least.removeprefix('>=3.'))} }};"


HEAD = """/* Made by cycontainer/command/facts.py of the Python side's own tables and texts. */
#ifndef FACTS_H
#define FACTS_H
#pragma GCC diagnostic ignored "-Wunused-variable"
struct option { const char *name; int id; int takes_value; };
struct name_of_signal { const char *name; int number; };
struct escape { char letter; const char *plain; };
"""


def main() -> None:
    parts = (options, state_file, documents, messages, listing, starting_and_ending, signals, interpreter)
    lines = [line for part in parts for line in part()]
    text = HEAD + "\n".join(lines) + "\n#endif\n"
    with open(sys.argv[1], "a+") as file:
        file.seek(0)
        if file.read() != text:  # else it stays as old as it is, and nothing is made again
            file.truncate(0)
            file.write(text)


if __name__ == "__main__":
    main()
