"""A run from its launch to its end: one call for who waits here, event by event for who waits elsewhere. Face."""

from __future__ import annotations

import os
import time
from _weakref import ref

from cycontainer import _wait
from cycontainer._clone import CLONED, ENDED, FAILED, LISTENER, MOUNT, SYNC, HeldSignals
from cycontainer._request import FOREVER
from cycontainer._result import Result, Usage
from cycontainer.errors import Error
from cycontainer.launch import attend, died, end_of, kill, launch, not_launched
from cycontainer.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer._clone import Child
    from cycontainer._request import Request
    from cycontainer._unit_run import UnitRun
    from cycontainer._work import Work
    from cycontainer.cgroup_layout import CgroupLayout
    from cycontainer.cgroup_runs import RunCgroup
    from cycontainer.cgroups import Cgroup
    from cycontainer.plan import Plan
    from cycontainer.supervisor import Supervisor

SIGKILL: Final = 9
PATIENCE: Final = 1.0  # seconds for a pid 1 to end all that is in its container

_open: set[ref[Running]] = set()  # those that are launched and not closed; who is dropped ends


def finish(request: Request) -> Result:
    """Launch, wait for the end, and clean up. Raises what `run()` does."""
    running = Running(request)
    try:
        running.begin()
        running.wait()
        running.settle()
    except OSError as error:
        raise not_launched(error) from error
    finally:
        running.close()
    return running.result()


class Running:
    """One run. Whoever made this closes it, whatever happens: what is then still there is killed.

    It is made before anything is opened, so that a signal handler that raises finds an owner for all that is.
    """

    def __init__(self, request: Request, *, streaming: bool = False, piped: bool = False) -> None:
        """`streaming`: output is an event. `piped`: our ends of its pipes stay in `streams`, for another to take."""
        self._mark = ref(self)
        self.started = time.monotonic()
        self.request, self.streaming, self.piped = request, streaming, piped
        self.plan = request.plan
        self.network = -1  # of a template's stock
        self.streams = Streams()
        self.supervisor = _supervisor(request)
        self.work = _work(request)
        self.cgroup: Cgroup | None = None
        self.unit: UnitRun | None = None
        self.child: Child | None = None
        self.waiter: _wait.Waiter | None = None
        self.ended: tuple[int, ...] | None = None  # the init's report
        self.timed_out = self.killed = False  # by us
        self.left = False  # to the parent: this process is a fork
        self.hung_up = False  # on pid 1, which then ends all
        self.processes = 1  # that the init has gone through
        self.answered = 0  # of the init's questions
        self.never_ran = False  # the init was ended before it executed the program
        self._end: tuple[int, float, float, int] | None = None
        self._peak: int | None = None
        self._kills: int | None = None  # for memory
        self._oom_killed = False
        self._files: dict[str, bytes] = {}
        self._refused: dict[str, str] = {}

    def begin(self) -> None:
        """Launch it, in a cgroup of its own where there are limits. Raises what `run()` does, and OSError."""
        request, stock = self.request, self.request.stock
        with HeldSignals():
            made, path = None, None
            if request.unit is not None:
                from cycontainer._unit_run import UnitRun

                self.unit = UnitRun(request.unit)
                self.plan, path = self.unit.plan, self.unit.path
            if stock is not None:
                self.network, made = stock.take()
                self.plan = stock.plan_with(self.network)
            self._open_streams()
            if self.unit is None and made is None:
                made = _make_cgroup(request.plan, request.layout)
            self.cgroup = made.cgroup if made else None
            self._mark = ref(self, _open.discard)
            _open.add(self._mark)
            self.child = launch(
                self.plan,
                descriptors=tuple(self.streams.program),
                args=request.args,
                env=request.env,
                cgroup=self.cgroup,
                cgroup_path=made.path if made else path,
                ready=stock.ready(self.network) if stock is not None else None,
            )
            self.streams.launched()
            if self.cgroup is not None:
                self.cgroup.release_tasks()
            self._make_waiter()
            if stock is not None:
                stock.replace()

    def _open_streams(self) -> None:
        self.streams.add("stdin", self.request.stdin)
        self.streams.add("stdout", self.request.stdout)
        self.streams.add("stderr", self.request.stderr)

    def _make_waiter(self) -> None:
        assert self.child is not None
        request, ends = self.request, dict(self.streams.ends)
        self.captured = ends["stdout"] >= 0, ends["stderr"] >= 0
        if self.piped:
            ends = dict.fromkeys(ends, -1)
        else:
            self.streams.taken()
        self.waiter = _wait.Waiter(
            self.child, ends["stdout"], ends["stderr"], ends["stdin"], request.data, request.timeout,
            request.output_limit, self.streaming, request.stock is not None and request.stock.removes_later,
        )  # fmt: skip

    def check_owner(self) -> None:
        """Raises Error: it is another process's."""
        if self.left:
            raise Error("a program is that of the process that started it")

    # --- waiting

    def wait(self) -> None:
        """Wait for the end, whatever it is. An exception is a signal's, or a failed step's."""
        assert self.waiter is not None
        while not self.hear(self.waiter.wait()):
            continue

    def hear(self, event: int) -> bool:
        """Deal with an event of the waiter; whether it was the end. Raises LaunchError: a step failed."""
        if event == _wait.DEADLINE:
            self.timed_out = self.timed_out or not self.hung_up  # else pid 1 has had its time
            self._stop()
        elif event == _wait.FLOOD:
            self._stop()
        elif event == _wait.MESSAGE:
            with HeldSignals():
                self._hear_init()
        elif event == _wait.ENDED:
            with HeldSignals():
                self._last_words()
            return True
        return False

    def _stop(self) -> None:
        """A pid 1 ends all and reports; what does not end so, or not in time, is killed."""
        assert self.child is not None and self.waiter is not None
        if self.unit is not None:
            self._count()
        if self.request.plan.keeps_init and not self.hung_up:
            self.hung_up = True
            self.child.hang_up()
            self.waiter.within(PATIENCE)
        else:
            kill(self.child)
            self.waiter.within(FOREVER)

    def _hear_init(self) -> None:
        assert self.child is not None and self.waiter is not None
        message = self.child.receive()
        if message:
            self._attend(message)

    @property
    def is_set_up(self) -> bool:
        """Whether the init needs nothing more of us."""
        return self.answered >= len(self.plan.syncs) and self.processes >= self.plan.processes

    def set_up(self) -> None:
        """Wait until the init needs nothing more of us, or has ended. Raises what `wait` does."""
        assert self.waiter is not None
        while not self.is_set_up and not self.hear(self.waiter.wait()):
            continue

    def _attend(self, message: tuple[int, ...]) -> None:
        self.answered += message[0] == SYNC
        assert self.child is not None and self.waiter is not None
        if message[0] == ENDED:
            self.ended = message
            if self.unit is not None:
                self._count()
                self.child.hang_up()  # it has waited for that
            return
        if self.stopped and message[0] in (FAILED, SYNC, LISTENER):
            return  # it gets no further: we have hung up
        if message[0] == MOUNT and self.work is not None:
            self.work.take(self.child.take_descriptor())
            return
        duties = {"work": self._fill, "unit": self._enter_unit}
        if self.supervisor is not None:
            duties["listener"] = self._supervise
        attend(self._plan_of(message), self.child, message, duties)
        if message[0] == CLONED:
            self.processes += 1
            self.waiter.watch()

    def _plan_of(self, message: tuple[int, ...]) -> Plan:
        """A failure is told of the program of this run, not of the one that the plan was made for."""
        return self.plan.replace(args=self.request.args) if message[0] == FAILED else self.plan

    def _enter_unit(self, child: Child) -> None:
        assert self.unit is not None  # else no plan has that step
        self.cgroup = self.unit.make(child.pid)

    def _supervise(self, child: Child) -> None:
        assert self.supervisor is not None  # a plan of ours notifies no one else
        self.supervisor.begin(child.listener, lambda: kill(child))

    def _fill(self, _: Child) -> int | None:
        assert self.work is not None  # a plan that asks has a working directory
        return self.work.fill()

    def _last_words(self) -> None:
        """A report that came together with the end."""
        assert self.child is not None
        message = self.child.receive() if self.child.socket >= 0 else None
        while message:
            if message[0] == ENDED:
                self.ended = message
            elif message[0] == FAILED and not self.stopped:
                attend(self._plan_of(message), self.child, message)
            message = self.child.receive()

    # --- the end

    def settle(self, *, collect: bool = True) -> None:
        """It has ended: reap it, and read what its cgroup has counted, and its files. Raises StatusUnknown."""
        assert self.child is not None
        self.child.settled()
        well = self.request.plan.keeps_init or _wait.exited_with_0(self.child.pidfd)
        self.never_ran = not well and _died_as_init(self.child)
        self._end = end_of(self.child, self.ended)
        self.end_rest()
        self._count()
        self._oom_killed = bool(self._kills)
        if self._kills is None and self.unit is not None:
            self._oom_killed = self.unit.ran_out_of_memory()
        if collect:
            self.collect()

    def collect(self) -> None:
        """Read the files that it was asked for, if any."""
        if self.work is not None:
            with HeldSignals():  # for no longer than it takes to read `work_size` bytes
                self._files, self._refused = self.work.collect()

    def end_rest(self) -> None:
        """Without a pid namespace of its own others of it may go on: its end is its cgroup's. Raises CgroupError."""
        if self.cgroup is not None and not self.request.plan.ends_all:
            self.cgroup.kill()

    def _count(self) -> None:
        """Read what its cgroup has counted; one that is gone counts no more."""
        peak, kills = self.cgroup.memory_report() if self.cgroup is not None else (None, None)
        if kills is not None:
            self._peak, self._kills = peak, kills

    def close(self) -> None:
        """Close and remove all that is ours; what has not been settled is killed first. In a fork nothing happens.

        Raises what a callable of the supervisor has raised: that ended the run.
        """
        if self.left:
            return
        with HeldSignals():
            _open.discard(self._mark)
            if self.child is not None and self._end is None:
                self.child.abandon()
            if self.waiter is not None:
                self._release_mounts(self.waiter.release_mounts())
                self.waiter.close()  # not when it goes: an exception's traceback would keep it
            self.streams.close()
            if self.network >= 0:
                network, self.network = self.network, -1
                assert self.request.stock is not None
                self.request.stock.give_back(network, ended=self._end is not None)
            if self.work is not None:
                self.work.close()
            if self.supervisor is not None:
                self.supervisor.close()
            if self.child is not None:
                self.child.close()
            try:
                self.end_rest()  # also when it was interrupted in `settle`
            finally:
                self._remove_cgroup()
        if self.supervisor is not None:
            self.supervisor.raise_error()

    def _release_mounts(self, mounts: int) -> None:
        if mounts >= 0:
            assert self.request.stock is not None
            self.request.stock.remove(lambda: os.close(mounts))

    def _remove_cgroup(self) -> None:
        cgroup, self.cgroup = self.cgroup, None
        unit, self.unit = self.unit, None
        if unit is not None:
            unit.close()
        if cgroup is None:
            return
        if self.request.stock is not None and self._end is not None:
            self.request.stock.remove(cgroup.destroy)
        else:
            cgroup.destroy()

    def result(self) -> Result:
        """What became of it, when it is closed. Raises LaunchError: the program had not begun."""
        assert self._end is not None and self.waiter is not None
        request = self.request
        code, user, system, resident = self._end
        if self._died_early(code):
            raise died(request.plan.replace(args=request.args), code)
        texts = [
            self._decoded(part) if wanted else None
            for part, wanted in zip(self.waiter.output(), self.captured, strict=True)
        ]
        return Result(
            args=list(request.args),
            returncode=-SIGKILL if self.timed_out or self.waiter.flooded else code,
            stdout=texts[0],
            stderr=texts[1],
            timed_out=self.timed_out,
            oom_killed=self._oom_killed,
            output_exceeded=self.waiter.flooded,
            files=self._files,
            refused=self._refused,
            usage=Usage(
                wall=time.monotonic() - self.started, user=user, system=system, peak_memory=self._peak or resident,
                processes=self.ended[3] or None if self.ended else None,
            ),
        )  # fmt: skip

    def _decoded(self, output: bytes) -> bytes | str:
        """As the caller wants it. What was cut off may end within a letter, which is then left out."""
        decoding = self.request.decoding
        if decoding is None:
            return output
        if not self.stopped:
            return output.decode(*decoding)
        import codecs

        return codecs.getincrementaldecoder(decoding[0])(decoding[1]).decode(output)

    def _died_early(self, code: int) -> bool:
        """Whether the init was killed before it could report, or go on: not by us, nor with the program's status."""
        plan = self.request.plan
        if self.processes < plan.processes or self.never_ran:
            return not self.stopped
        return plan.keeps_init and self.ended is None and not self.stopped and code != 126

    @property
    def stopped(self) -> bool:
        """Whether it was us who ended it."""
        return self.timed_out or self.killed or (self.waiter is not None and self.waiter.flooded)


def _leave_to_parent() -> None:
    """In a fork: the containers are the parent's."""
    for mark in _open:
        running = mark()
        if running is not None:
            running.left = True
    _open.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _supervisor(request: Request) -> Supervisor | None:
    if request.supervisor is None:
        return None
    from cycontainer.supervisor import Supervisor

    return Supervisor(request.supervisor)


def _work(request: Request) -> Work | None:
    if request.exchange is None or request.plan.work is None:
        return None
    from cycontainer._work import Work

    return Work(request.plan.work, request.exchange)


def _make_cgroup(plan: Plan, layout: CgroupLayout) -> RunCgroup | None:
    if plan.cgroup is None or not plan.cgroup.hierarchies:
        return None
    from cycontainer.cgroup_runs import new_run_cgroup

    return new_run_cgroup(plan.cgroup, layout)


def _died_as_init(child: Child) -> bool:
    from cycontainer.handles import died_as_init

    return died_as_init(child.pid)
