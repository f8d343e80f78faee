"""The blocks of a page of the documentation, and what running them comes to."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping

from cycontainer.record import Record

FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


class Block(Record):
    """A fenced block of a page: its language, its text, and the page's line before it."""

    language: str
    text: str
    line: int


def text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def blocks(path: str, *languages: str) -> list[Block]:
    """A page's blocks in these languages, in order."""
    text = text_of(path)
    found = re.finditer(r"^```(\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    every = [Block(language=each[1], text=each[2], line=text.count("\n", 0, each.start()) + 1) for each in found]
    return [block for block in every if block.language in languages]


class StepsDiffer(doctest.OutputChecker):
    """How many steps a launch takes depends on the machine; all else is as it is printed."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        want, got = (re.sub(r"step \w+ of \w+", "step N of N", text) for text in (want, got))
        return super().check_output(want, got, optionflags)


def python_fails(path: str, names: dict[str, object]) -> str:
    """Run a page's Python, one block after the other: what is shown at prompts must come. What does not; else ""."""
    said: list[str] = []
    for block in blocks(path, "python"):
        if not block.text.startswith(">>>"):
            exec(compile("\n" * block.line + block.text, path, "exec", dont_inherit=True), names)
            continue
        test = doctest.DocTestParser().get_doctest(block.text, {}, os.path.basename(path), path, block.line)
        test.globs = names
        doctest.DocTestRunner(StepsDiffer(), verbose=False, optionflags=FLAGS).run(
            test, out=said.append, clear_globs=False
        )
    return "".join(said)


class Shown(Record):
    """A command of a console block, and what it prints."""

    command: str
    output: str


def shown(block: Block) -> list[Shown]:
    """ "$ " begins a command, "> " goes on with it, and all else is what it prints."""
    found: list[Shown] = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append(Shown(command=line[2:], output=""))
        elif line.startswith("> "):
            found[-1] = found[-1].replace(command=found[-1].command + line[2:])
        else:
            found[-1] = found[-1].replace(output=found[-1].output + line)
    return found


def console_fails(block: Block, directory: str, env: Mapping[str, str]) -> str:
    """Run a block's commands, each in a shell of its own. What prints something else, or says something; else ""."""
    for each in shown(block):
        status, printed, said = called(each.command, directory, env)
        if status or said or not StepsDiffer().check_output(each.output, printed, FLAGS):
            return f"$ {each.command}it returned {status}, printed\n{printed}and said\n{said}"
    return ""


def called(command: str, directory: str, env: Mapping[str, str]) -> tuple[int, str, str]:
    """A shell's exit status and output. It goes to files: what outlives the shell would hold a pipe open."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        words = ["sh", "-eu", "-c", command]
        done = subprocess.run(
            words, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=120
        )
        out.seek(0)
        err.seek(0)
        return done.returncode, out.read(), err.read()
