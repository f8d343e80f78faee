"""What shells complete and man(1) shows is what the command takes: real shells are asked, and real formatters read."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from conftest import decline, lacks
from oci_command import COMMAND, Oci

from cycontainer.cli.__main__ import GLOBAL, LIFE, VERBS
from cycontainer.cli.verb import HELP, Verb, arguments_of

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@cache
def made(script: str, *words: str) -> str:
    """What a generator prints."""
    command = [sys.executable, f"{ROOT}/cycontainer/command/{script}.py", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        lacks(program)
    return found


def verb_of(name: str) -> Verb:
    verb: Verb = __import__(f"cycontainer.cli.{name}", fromlist=["VERB"]).VERB
    return verb


# --- shells


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file, a directory, and a `cycontainer` that is this tree's."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here/bundle").mkdir()
    (tmp_path / "here/file").touch()
    command = tmp_path / "bin/cycontainer"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    return tmp_path


def asked(place: Path, argv: list[str], text: str = "") -> list[str]:
    env = {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "HOME": str(place), "PYTHONPATH": ROOT}
    done = subprocess.run(
        argv,
        cwd=place / "here",
        env=env,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def bash(place: Path, line: str) -> list[str]:
    """What bash offers at the end of a line, which it breaks into words as it does where one types."""
    script = made("completions", "bash")
    words = [part for word in line.split(" ") for part in word.partition("=") if part or word == ""]
    words = [word for index, word in enumerate(words) if word or index == len(words) - 1]
    call = f"""
COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
compopt() {{ :; }} # no line is being typed
_cycontainer
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return asked(place, ["bash", "--norc", "--noprofile"], script + call)


def fish(place: Path, line: str) -> list[str]:
    (place / "completions.fish").write_text(made("completions", "fish"))
    script = f"source {place}/completions.fish; complete -C {shlex.quote(line)}"
    lines = asked(place, [needs("fish"), "--no-config", "-c", script])
    return [line.partition("\t")[0] for line in lines]


ZPTY = r"""
zmodload zsh/zpty
zpty asked zsh -f -i
zpty -w asked 'PS1= LISTMAX=10000'
zpty -w asked 'fpath=(%(place)s $fpath); autoload -U compinit; compinit -u -D'
zpty -w asked 'compadd() { local -a found; builtin compadd -O found "$@"
print -rl -- $found >>%(place)s/found; builtin compadd "$@"; }'
zpty -w asked 'echo REA''DY'
zpty -r asked answer '*READY*'
zpty -w -n asked %(line)s$'\t'
zpty -w asked ''
zpty -w asked $'\x15exit'
while zpty -r asked answer; do :; done
cat %(place)s/found
"""


def zsh(place: Path, line: str) -> list[str]:
    """What zsh's completion adds, seen by its own `compadd`, in a terminal of its own."""
    program = needs("zsh")
    (place / "_cycontainer").write_text(made("completions", "zsh"))
    (place / "found").write_text("")
    return asked(place, [program, "-f", "-c", ZPTY % {"place": place, "line": shlex.quote(line)}])


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
EACH = ["bash", pytest.param("zsh", marks=pytest.mark.slow), "fish"]  # a zsh that is typed into takes seconds
LINES = [  # what is typed; some of what must be offered; some that must not
    ("cycontainer ", {"create", "exec", "spec"}, {"--root", "file"}),
    ("cycontainer st", {"start", "state"}, {"run"}),
    ("cycontainer --log-f", {"--log-format"}, {"--root"}),
    ("cycontainer --log-format ", {"text", "json"}, {"create"}),
    ("cycontainer --root bundle st", {"start"}, {"run"}),
    ("cycontainer --debug list --", {"--format", "--quiet"}, {"--root", "--bundle"}),
    ("cycontainer list --format ", {"table", "json"}, {"--quiet"}),
    ("cycontainer create --bundle ", {"bundle"}, {"file"}),
    ("cycontainer plan ", {"bundle"}, {"file"}),
    ("cycontainer kill one K", {"KILL"}, {"TERM", "one"}),
    ("cycontainer exec one f", {"file"}, {"one", "--cwd"}),
]


@pytest.mark.parametrize("shell", EACH)
@pytest.mark.parametrize(("line", "offered", "not_offered"), LINES, ids=[line for line, _, _ in LINES])
def test_a_shell_offers_what_the_command_takes(
    place: Path, shell: str, line: str, offered: set[str], not_offered: set[str]
) -> None:
    found = {word.removesuffix("/") for word in SHELLS[shell](place, line)}
    assert offered <= found and not not_offered & found, sorted(found)


def test_bash_completes_the_value_after_an_equals_sign(place: Path) -> None:
    assert bash(place, "cycontainer list --format=js") == ["json"]
    assert bash(place, "cycontainer --root=bundle list --format=t") == ["table"]


def test_bash_knows_every_option_of_every_verb(place: Path) -> None:
    assert bash(place, "cycontainer -") == [name for option in GLOBAL for name in option.names]
    for name in VERBS:
        names = [word for option in verb_of(name).options for word in option.names]
        assert bash(place, f"cycontainer {name} -") == [*names, *HELP], name


@pytest.mark.root
@pytest.mark.parametrize("shell", EACH)
def test_a_shell_offers_the_containers_that_there_are(oci: Oci, place: Path, shell: str) -> None:
    oci.create("first")
    oci.create("second")
    assert set(SHELLS[shell](place, f"cycontainer --root {oci.states} delete --force ")) >= {"first", "second"}
    assert SHELLS[shell](place, f"cycontainer --root {oci.states} state fi") == ["first"]


# --- the manual page, and --help


def test_the_manual_page_is_one_that_formatters_take(tmp_path: Path) -> None:
    page = tmp_path / "cycontainer.1"
    page.write_text(made("manual"))
    for program, *options in (["groff", "-man", "-ww", "-z", "-Tutf8"], ["mandoc", "-T", "lint"]):
        if program == "mandoc" and not shutil.which(program):
            continue  # groff has read it
        done = subprocess.run([needs(program), *options, str(page)], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_manual_page_has_all_verbs_and_options(tmp_path: Path) -> None:
    text = made("manual").replace(r"\-", "-").replace(r"\fB", "").replace(r"\fR", "").replace(r"\fI", "")
    for name in VERBS:
        verb = verb_of(name)
        assert f".SS cycontainer {name} [options]" in text and verb.example.partition("'")[0] in text
        for option in verb.options:
            assert f".TP\n{', '.join(option.names)} {option.value}".rstrip() in text


@pytest.mark.parametrize("name", VERBS)
def test_the_example_of_a_verb_is_a_call_of_it(name: str) -> None:
    verb = verb_of(name)
    command, called, *words = shlex.split(verb.example)
    assert (command, called) == ("cycontainer", name)
    arguments_of(name, verb, words)


@pytest.mark.root
def test_the_life_that_help_shows_can_be_lived(place: Path) -> None:
    static = [path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path)]
    if not static:
        decline("no busybox in /bin or /usr/bin")
    script = "\n".join(["set -eu", "cd ..", "export XDG_RUNTIME_DIR=$PWD", *LIFE])
    script = script.replace("/bin/busybox", static[0]).replace("bundle web", "bundle web <words")
    config = 'sed -i \'s/"terminal": true/"terminal": false/\' bundle/config.json\n'  # none is here
    script = script.replace("cycontainer run", f"{config}cycontainer run")
    (place / "words").write_text("echo in $0\n")
    assert asked(place, ["sh", "-c", script]) == ["in sh"]


# --- where nothing is compiled


def test_all_is_made_where_nothing_is_compiled(tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(f"{ROOT}/cycontainer", copy / "cycontainer", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for words in (["completions", "bash"], ["manual"]):
        command = [sys.executable, "-I", f"{copy}/cycontainer/command/{words[0]}.py", *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == made(*words)
