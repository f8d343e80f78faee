"""Runs a function as a truly ordinary user: no group, no subordinate ids, no capability."""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import pkgutil
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Returned = TypeVar("Returned")

UID = 54321  # in no /etc/passwd, /etc/subuid or /etc/subgid
PR_SET_DUMPABLE = 4


class OrdinaryUser:
    """Calls functions in a forked child that is this user, with a home of its own.

    Attributes:
        uid: the user's id, and that of its only group: the caller's own when the tests do not run as root.
    """

    def __init__(self) -> None:
        self.uid = UID if os.geteuid() == 0 else os.geteuid()

    def __call__(self, function: Callable[..., Returned], *args: Any, **keywords: Any) -> Returned:
        """What the function returns, or raises, both pickled; a failed assertion comes back with its traceback."""
        import_all("cycontainer")  # now: the user may be unable to read where this interpreter lies
        home = tempfile.mkdtemp(prefix="ordinary-")
        os.chown(home, self.uid, -1)
        reader, writer = os.pipe()
        try:
            with warnings.catch_warnings():  # 3.12 warns of threads at fork; the child goes its own way at once
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                os.close(reader)
                self._answer(writer, home, lambda: function(*args, **keywords))
            os.close(writer)
            with open(reader, "rb") as answers:
                answer = answers.read()
            _, status = os.waitpid(pid, 0)
        finally:
            shutil.rmtree(home)
        if not answer:
            raise AssertionError(f"as an ordinary user: ended with {os.waitstatus_to_exitcode(status)}, and no answer")
        value, error = pickle.loads(answer)
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]  # pickled: it is what the function returned

    def _answer(self, writer: int, home: str, call: Callable[[], object]) -> NoReturn:
        """In the child: become the user, call, answer, exit without what the parent has registered."""
        try:
            try:
                become(self.uid, home)
                answer = pickle.dumps((call(), None))
            except BaseException as error:
                error.add_note("as an ordinary user:\n" + traceback.format_exc())
                answer = portable(error)
            with open(writer, "wb") as pipe:
                pipe.write(answer)
        finally:
            os._exit(0)


def become(uid: int, home: str) -> None:
    """Drop all that root is and has; no_new_privs stays unset, and /proc/self the process's own."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # The change of ids gave /proc/self to root; a user's own process is dumpable.
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    os.chdir(home)
    os.environ.clear()
    os.environ.update(HOME=home, TMPDIR=home, PATH="/usr/local/bin:/usr/bin:/bin", LANG="C.UTF-8")
    tempfile.tempdir = home


def portable(error: BaseException) -> bytes:
    """The exception pickled; where it cannot be, an AssertionError with its text."""
    try:
        answer = pickle.dumps((None, error))
        pickle.loads(answer)
    except Exception:  # an exception class may fail in any way here, and its text is what counts
        answer = pickle.dumps((None, AssertionError("\n".join([repr(error), *error.__notes__]))))
    return answer


def import_all(package: str) -> None:
    """Import every module of a package but those that run when imported."""
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
