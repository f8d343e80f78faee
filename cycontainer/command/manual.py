"""Prints the manual page cycontainer(1), in man(7), made of the verbs' tables at build time.

python cycontainer/command/manual.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from textwrap import wrap

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from cycontainer.cli import __main__ as command
from cycontainer.cli.verb import Option, Verb
from cycontainer.command.verbs import every_verb
from cycontainer.state import ROOT
from cycontainer.version import VERSION

DATE = "2026-11-29"  # of the last change to what this file says

ABOUT = """\
.SH DESCRIPTION
.B cycontainer
makes containers of bundles, as the Open Containers Initiative's runtime specification has them: a directory with a root
file system and a
.IR config.json .
Engines such as containerd, Podman and Docker call it as they call
.BR runc (8),
with the same options, exit statuses and error texts; a person can, too.
.PP
A container is
.I created
(all is set up, and its program waits),
.IR started ,
perhaps
.IR paused ,
and in the end
.IR deleted .
.B run
does it all at once. No daemon is needed. The library of the same name does it from Python:
.IR "import cycontainer" .
.PP
Options and operands may be mixed.
.BI \\-\\-option " VALUE"
and
.BI \\-\\-option= VALUE
are the same, and what follows
.B \\-\\-
is operands.
Long options may have one dash; short ones may be joined; a flag may have a value, as in
.BR \\-\\-force=false ;
an option whose value is empty is not given."""

EXIT = """\
.SH EXIT STATUS
.B run
and
.B exec
in the foreground return the program's own status, or 128 and the number of the signal that ended it. What
.B cycontainer
itself cannot do is status 1, and of
.B exec
255; a line on the standard error says why. All else is 0."""

FILES = f"""\
.SH FILES
.TP
.I {ROOT}
The state of root's containers, a directory each.
.TP
.I $XDG_RUNTIME_DIR/cycontainer
That of an ordinary user's.
.TP
.I config.json
The configuration of a bundle.
.B cycontainer spec
writes one that works."""

ENVIRONMENT = """\
.SH ENVIRONMENT
.TP
.B XDG_RUNTIME_DIR
Where an ordinary user's states are kept.
.TP
.B NOTIFY_SOCKET
A service manager's socket, which is told when the container's program says that it is ready.
.TP
.BR LISTEN_FDS ", " LISTEN_PID
Sockets that a service manager has passed are passed on to the program."""

OTHERS = """\
.SH SEE ALSO
.BR bwrap (1),
.BR crun (1),
.BR nsenter (1),
.BR unshare (1),
.BR criu (8),
.BR runc (8),
.BR cgroups (7),
.BR namespaces (7)"""


def roff(text: str) -> str:
    """Text that is printed as it is."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


def prose(text: str) -> str:
    """A sentence for a reader, with a capital letter and a full stop."""
    return f"{roff(text[:1].upper() + text[1:])}."


def usage(text: str) -> str:
    """A verb's operands, those that are a reader's to fill in slanted."""
    return " ".join(rf"\fI{roff(word)}\fR" for word in text.split())


def options(table: tuple[Option, ...]) -> Iterator[str]:
    for option in table:
        names = ", ".join(rf"\fB{roff(name)}\fR" for name in option.names)
        value = rf" \fI{roff(option.value)}\fR" if option.value else ""
        yield f".TP\n{names}{value}\n{roff(option.help)}"


def verbs(tables: dict[str, Verb]) -> Iterator[str]:
    yield ".SH VERBS"
    for name, verb in tables.items():
        operands = usage(verb.usage)
        yield rf".SS \fBcycontainer {name}\fR [\fIoptions\fR] {operands}".rstrip()
        yield prose(verb.help)
        yield from options(verb.options)
        yield f".PP\nExample:\n.PP\n.EX\n    {roff(verb.example)}\n.EE"


def page() -> str:
    lines = [
        f'.TH CYCONTAINER 1 "{DATE}" "cycontainer {VERSION}" "User Commands"',
        ".SH NAME\ncycontainer \\- make and manage containers, as an OCI runtime",
        '.SH SYNOPSIS\n.B cycontainer\n.RI [ options ]\n.I VERB\n.RI [ "options of the verb" ]\n.RI [ operand ...]',
        ABOUT,
        ".SH OPTIONS\nThese stand before the verb.",
        *options(command.GLOBAL),
        *verbs(every_verb()),
        EXIT,
        ENVIRONMENT,
        FILES,
        ".SH EXAMPLES\nA first container, of one program:\n.PP\n.EX",
        *(f"    {roff(line)}" for line in command.LIFE),
        ".EE",
        OTHERS,
    ]
    return "\n".join(filled("\n".join(lines).split("\n"))) + "\n"


def filled(lines: list[str]) -> Iterator[str]:
    """The lines, with text that is filled when it is printed broken where it is long."""
    for line in lines:
        text = not line.startswith((".", " "))
        yield from wrap(line, 78, break_long_words=False, break_on_hyphens=False) if text else [line]


if __name__ == "__main__":
    print(page(), end="")
