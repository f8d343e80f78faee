"""The command is killed at any system call, or that fails: `delete --force` cleans up, every time. Damaged states."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from guard import left_since, snapshot
from inject import AVAILABLE, KILLED, Outcome, Trial
from oci_command import COMMAND, gone

from cycontainer import deletion
from cycontainer.cli.__main__ import main
from cycontainer.errors import LaunchError
from cycontainer.lifecycle import Container
from cycontainer.spec import default_config
from cycontainer.state import load
from cycontainer.streams import DEVNULL
from cycontainer.tables import HOOK_KINDS

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not AVAILABLE, reason="the tracer knows the registers of x86_64 only"),
]

SAMPLE = 31
FAULTS = (KILLED, errno.ENOMEM, KILLED, errno.ENOSPC, KILLED, errno.EINTR)
NAME = "cycontainer-crash"


class Bundle:
    """A bundle whose container sleeps, with hooks or without, and the command on it."""

    def __init__(self, top: str, rootfs: str, hooks: tuple[str, ...] = ()) -> None:
        self.path, self.root = f"{top}/bundle", f"{top}/states"
        os.mkdir(self.path)
        config = default_config()
        config["root"]["path"] = rootfs
        config["process"].update(args=["sleep", "1000"], env=["PATH=/bin"], terminal=False)
        config["linux"]["cgroupsPath"] = f"/{NAME}"
        config["hooks"] = {kind: [{"path": "/bin/busybox", "args": ["true"]}] for kind in hooks}
        self.config = config
        self.write()

    def write(self) -> None:
        with open(f"{self.path}/config.json", "w") as file:
            json.dump(self.config, file)

    def command(self, *words: str) -> int:
        return main(["--root", self.root, *words])

    def create(self) -> int:
        return self.command("create", "--bundle", self.path, NAME)

    def start(self) -> int:
        return self.command("start", NAME)

    def execute(self) -> int:
        return self.command("exec", "--detach", NAME, "sleep", "1000")

    def delete(self) -> int:
        return self.command("delete", NAME)

    def delete_by_force(self) -> int:
        return self.command("delete", "--force", NAME)

    def state(self) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "cycontainer", "--root", self.root, "state", NAME]
        return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture
def bundle(busybox_rootfs: str, tmp_path: object) -> Iterator[Bundle]:
    made = Bundle(str(tmp_path), busybox_rootfs)
    assert made.create() == 0 and made.delete_by_force() == 0  # what is imported when needed, is
    yield made
    made.delete_by_force()
    reap()


@pytest.fixture
def bundle_with_hooks(busybox_rootfs: str, tmp_path: Path) -> Iterator[Bundle]:
    (tmp_path / "hooked").mkdir()
    made = Bundle(f"{tmp_path}/hooked", busybox_rootfs, tuple(HOOK_KINDS))
    assert made.create() == 0 and made.delete_by_force() == 0
    yield made
    made.delete_by_force()
    reap()


def created(bundle: Bundle) -> None:
    assert bundle.create() == 0


def started(bundle: Bundle) -> None:
    created(bundle)
    assert bundle.start() == 0


def stopped(bundle: Bundle) -> None:
    started(bundle)
    first = os.pidfd_open(Container.load(NAME, root=bundle.root).pid)
    assert bundle.command("kill", NAME, "KILL") == 0
    gone(first)


VERBS: dict[str, tuple[Callable[[Bundle], object], Callable[[Bundle], int]]] = {  # what goes before, what is killed
    "create": (lambda bundle: None, Bundle.create),
    "start": (created, Bundle.start),
    "exec": (started, Bundle.execute),
    "delete": (stopped, Bundle.delete),
    "delete created": (created, Bundle.delete_by_force),
    "delete running": (started, Bundle.delete_by_force),
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_command_may_be_killed_or_fail_at_any_system_call(
    verb: str, bundle: Bundle, request: pytest.FixtureRequest
) -> None:
    every = request.config.getoption("--every-call")
    problems = problems_of(verb, bundle, sorted(set(FAULTS)), 1) if every else problems_of(verb, bundle, FAULTS, SAMPLE)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("verb", ["create", "start", "delete", "delete running"])
def test_the_command_may_be_killed_or_fail_at_any_system_call_around_hooks(
    verb: str, bundle_with_hooks: Bundle, request: pytest.FixtureRequest
) -> None:
    every = request.config.getoption("--every-call")
    faults, distance = (sorted(set(FAULTS)), 1) if every else (FAULTS, SAMPLE)
    problems = problems_of(verb, bundle_with_hooks, faults, distance)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_the_command_may_be_killed_at_every_system_call(verb: str, bundle: Bundle) -> None:
    problems = problems_of(verb, bundle, (KILLED,), 1)
    assert not problems, "\n".join(problems)


def problems_of(verb: str, bundle: Bundle, faults: Sequence[int], distance: int) -> list[str]:
    """What goes wrong when every `distance`-th call fails: in each way, or, if not every call does, in one in turn."""
    before_it, do = VERBS[verb]
    before, problems, n = snapshot(), list[str](), 1
    while True:
        for fault in faults if distance == 1 else (faults[n // distance % len(faults)],):
            before_it(bundle)
            outcome = Trial(lambda: do(bundle), 0, n, fault, follow=False).run()
            problem = problem_of(verb, outcome, fault, bundle, before)
            if problem:
                problems.append(f"call {n}, {fault}: {problem}; {outcome}")
        if outcome.call < 0:
            break
        n += distance
    return problems


def test_an_init_that_is_killed_before_it_has_its_name_is_no_container(bundle: Bundle) -> None:
    """By its name alone it would pass for a program."""

    def create() -> str:
        with Container.create(NAME, bundle.config, root=bundle.root, stdin=DEVNULL) as container:
            return container.status

    for n in range(1, 8):
        outcome = Trial(create, 1, n, KILLED).run()
        assert isinstance(outcome.error, LaunchError) and not outcome.left, (n, outcome)
        assert os.listdir(bundle.root) == []


def paused(bundle: Bundle) -> None:
    started(bundle)
    assert bundle.command("pause", NAME) == 0


COMPILED: dict[tuple[str, ...], Callable[[Bundle], object]] = {  # what is killed: what goes before
    ("state",): created,
    ("list",): started,
    ("start",): created,
    ("kill",): started,
    ("pause",): started,
    ("resume",): paused,
    ("delete",): created,
    ("delete", "--force"): started,
    ("create", "--bundle", "@bundle"): lambda _: None,
    ("run", "--detach", "--bundle", "@bundle"): lambda _: None,
    ("exec", "--detach"): started,
}


@pytest.mark.parametrize("verb", COMPILED, ids=" ".join)
def test_the_compiled_command_may_be_killed_or_fail_at_any_system_call(
    verb: tuple[str, ...], bundle: Bundle, request: pytest.FixtureRequest
) -> None:
    """Also where it hands on: then the interpreter has to find what it needs."""
    distance = 1 if request.config.getoption("--every-call") else SAMPLE // 2
    counted, problems = tried(verb, COMPILED[verb], bundle, (COMMAND[0],), distance)
    assert not problems, "\n".join(problems)
    assert counted > SAMPLE // 2  # some calls were its own


def test_a_freezer_that_goes_behind_the_signal_holds_nobody(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    started(bundle)
    state = load(bundle.root, NAME)
    assert bundle.delete_by_force() == 0
    monkeypatch.setattr(deletion, "has_freezer", lambda _: True)  # a moment ago
    deletion._let_die(state, deletion.SIGKILL)


DONE: dict[tuple[str, ...], tuple[Callable[[Bundle], object], str]] = {  # what goes before; what would be no answer
    ("kill", NAME, "KILL"): (started, "not running"),
    ("start", NAME): (created, "cannot start"),
    ("pause", NAME): (started, "not running"),
    ("resume", NAME): (paused, "not paused"),
    ("delete", "--force", NAME): (started, "does not exist"),
}


@pytest.mark.parametrize("verb", DONE, ids=" ".join)
def test_the_interpreter_is_not_asked_to_do_what_has_been_done(
    verb: tuple[str, ...], bundle: Bundle, tmp_path: Path
) -> None:
    """Whatever fails behind the signal, or the byte: it would find it done, and say that it cannot be."""
    words, (before_it, wrong) = [COMMAND[0], "--root", bundle.root, *verb], DONE[verb]

    def call(said: int) -> None:
        os.dup2(said, 2)
        os.execv(words[0], words)

    problems, n = [], 1
    while True:
        before_it(bundle)
        with open(tmp_path / "said", "w") as said:
            outcome = Trial(lambda: call(said.fileno()), 0, n, errno.EIO, follow=False, programs=(COMMAND[0],)).run()
        text = (tmp_path / "said").read_text()
        if wrong in text:
            problems.append(f"call {n}: {outcome}: {text}")
        assert bundle.delete_by_force() == 0
        if outcome.call < 0:
            break
        n += 1
    assert not problems and n > SAMPLE, "\n".join(problems)


def hooked(kind: str, before: Callable[[Bundle], object]) -> Callable[[Bundle], object]:
    def prepare(bundle: Bundle) -> None:
        bundle.config["hooks"] = {kind: [{"path": "/bin/true"}, {"path": "/bin/sleep", "args": ["sleep", "0.01"]}]}
        bundle.write()
        before(bundle)

    return prepare


HANDED_ON: dict[str, tuple[tuple[str, ...], Callable[[Bundle], object]]] = {
    "create": (("create", "--bundle", "@bundle"), lambda _: None),
    "run": (("run", "--detach", "--bundle", "@bundle"), lambda _: None),
    "exec": (("exec", "--detach"), started),
    "start with hooks": (("start",), hooked("poststart", created)),
    "delete with hooks": (("delete",), hooked("poststop", stopped)),
    "delete running with hooks": (("delete", "--force"), hooked("poststop", started)),
}


@pytest.mark.parametrize("verb", HANDED_ON)
def test_the_interpreter_that_it_hands_on_to_may_be_killed_or_fail_at_any_system_call(
    verb: str, bundle: Bundle, request: pytest.FixtureRequest
) -> None:
    distance = 1 if request.config.getoption("--every-call") else SAMPLE
    programs = (COMMAND[0], os.path.realpath(sys.executable))
    counted, problems = tried(*HANDED_ON[verb], bundle, programs, distance)
    assert not problems, "\n".join(problems)
    assert counted > 10 * SAMPLE  # most calls are the interpreter's


def tried(
    verb: tuple[str, ...],
    before_it: Callable[[Bundle], object],
    bundle: Bundle,
    programs: tuple[str, ...],
    distance: int,
) -> tuple[int, list[str]]:
    """How many calls of the real command there are, and what went wrong when every `distance`-th failed."""
    words = [COMMAND[0], "--root", bundle.root, *[word.replace("@bundle", bundle.path) for word in verb]]
    words += [] if verb == ("list",) else [NAME, "sleep", "1000"] if verb[0] == "exec" else [NAME]
    before, problems, n = snapshot(), list[str](), 1
    while True:
        for fault in sorted(set(FAULTS)) if distance == 1 else (FAULTS[n // distance % len(FAULTS)],):
            before_it(bundle)
            trial = Trial(lambda: os.execv(words[0], words), 0, n, fault, follow=False, programs=programs)
            outcome = trial.run()
            problem = "it hangs" if outcome.hung else remains(bundle, before)
            if problem:
                problems.append(f"call {n}, {fault}: {problem}; {outcome}")
        if outcome.call < 0:
            return n, problems
        n += distance


def reap() -> None:
    """The containers were made by us, or we are the init that inherits them: their zombies are no leak of theirs."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def problem_of(verb: str, outcome: Outcome, fault: int, bundle: Bundle, before: set[str]) -> str:
    """What is wrong with an outcome, and cleaning up after it."""
    problem = ""
    if outcome.hung:
        problem = "it hangs"
    elif outcome.error is not None:
        problem = "an exception came through"
    elif outcome.call >= 0 and fault != KILLED and outcome.left and outcome.value != 0:
        problem = "descriptors or children are left"
    elif verb == "create" and outcome.value == 1 and os.listdir(bundle.root):
        problem = "a failed create left its state"
    left = remains(bundle, before)
    return problem or left


def remains(bundle: Bundle, before: set[str]) -> str:
    """Clean up as a person would."""
    if bundle.delete_by_force() != 0:
        return "delete --force failed"
    reap()
    left = [*left_since(before), *os.listdir(bundle.root)]
    return f"left behind: {left}" if left else ""
