"""What the command has to say beside its result: to stderr, and to the log that engines read. Face."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

FORMATS: Final = ("text", "json")
TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
SCHEME: Final = "file:"  # what may stand before the log's path
PREFIX: Final = "cycontainer: "
NO_LOG: Final = "--log {}: {}"


class Report:
    """Where errors and warnings go.

    Attributes:
        path: of the log; "" is none, then all goes to stderr.
        form: of its lines, one of FORMATS; "" is the first.
        level: "debug" tells what is no news, too; "error" nothing but errors.
    """

    def __init__(self, path: str = "", form: str = "", level: str = "") -> None:
        self.path, self.form, self.level = path.removeprefix(SCHEME), form or "text", level

    def error(self, text: str) -> None:
        """The last word: to stderr as well as to the log."""
        if self.path:
            self._log("error", text)
        if self.form == "json" and not self.path:
            self._print(_line("json", "error", text))
        else:
            self._print(PREFIX + text)

    def warn(self, text: str) -> None:
        if self.level == "error":
            return
        if self.path:
            self._log("warning", text)
        else:
            self._print(_line("json", "warning", text) if self.form == "json" else f"{PREFIX}warning: {text}")

    def tell(self, text: str) -> None:
        """For who asked for --debug."""
        if self.level != "debug":
            return
        if self.path:
            self._log("debug", text)
        else:
            self._print(_line(self.form, "debug", text))

    def _log(self, level: str, text: str) -> None:
        line = (_line(self.form, level, text) + "\n").encode()
        try:
            fd = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o644
            )
            try:
                os.write(fd, line)  # in one call: lines of several commands stay whole
            finally:
                os.close(fd)
        except OSError as error:
            from cycontainer.json_text import quoted

            self._print(PREFIX + NO_LOG.format(quoted(self.path)[1:-1], error.strerror))

    def _print(self, line: str) -> None:
        try:
            os.write(2, line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError:
            sys.stderr = None  # nobody is there to hear it, nor what the interpreter would add


def _line(form: str, level: str, text: str) -> str:
    """A line as logrus writes it, whose lines engines parse."""
    import time

    from cycontainer.json_text import quoted, to_json  # a verb that has nothing to say does without

    now = time.strftime(TIME, time.gmtime())
    if form == "json":
        return to_json({"level": level, "msg": text, "time": now})
    return f'time="{now}" level={level} msg={quoted(text)}'
