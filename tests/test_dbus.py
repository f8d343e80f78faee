"""What is believed on a bus that others are on, too: systemd's own words alone. The bus is the test's."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cycontainer import systemd
from cycontainer.errors import HostError
from cycontainer.systemd import Refused, Systemd
from cycontainer.units import Unit

jeepney = pytest.importorskip("jeepney")  # an extra
from jeepney import HeaderFields, Message, MessageType, Parser, new_error, new_method_return, new_signal  # noqa: E402

SYSTEMD, ATTACKER, CLIENT = ":1.1", ":1.66", ":1.9"
JOB, PATH = "/org/freedesktop/systemd1/job/7", "/org/freedesktop/systemd1"
UNIT = Unit(name="box.scope", slice="system.slice")


class Bus:
    """A bus with one client, and what others on it say after each of the client's calls.

    Attributes:
        says: a method's name: what is sent when it is called, in place of a reply that is none.
        called: the methods and whom they were for.
    """

    def __init__(self, path: str) -> None:
        self.says: dict[str, Callable[[Message], list[Message]]] = {}
        self.called: list[tuple[str, str]] = []
        self.owner = SYSTEMD
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                try:
                    self._speak(client)
                except OSError:  # it has gone in the middle
                    continue

    def _speak(self, client: socket.socket) -> None:
        client.recv(1024)
        client.sendall(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n")
        parser, serial = Parser(), 100
        data = client.recv(4096).removeprefix(b"BEGIN\r\n")
        while True:
            parser.add_data(data)
            for call in iter(parser.get_next_message, None):
                for message in self._answers(call):
                    serial += 1
                    client.sendall(message.serialise(serial=serial))
            data = client.recv(4096)
            if not data:
                break

    def _answers(self, call: Message) -> list[Message]:
        method, whom = call.header.fields[HeaderFields.member], call.header.fields[HeaderFields.destination]
        self.called.append((method, whom))
        if method in self.says:
            return self.says[method](call)
        if whom == "org.freedesktop.DBus":
            body = {"Hello": ("s", (CLIENT,)), "GetNameOwner": ("s", (self.owner,))}.get(method, (None, ()))
            return [of("org.freedesktop.DBus", new_method_return(call, *body))]
        if whom != self.owner:
            return [of("org.freedesktop.DBus", new_error(call, "org.freedesktop.DBus.Error.ServiceUnknown"))]
        if method in ("StartTransientUnit", "StopUnit"):
            return [started(call), ended(self.owner)]
        return [of(self.owner, new_method_return(call))]


def of(sender: str, message: Message, **fields: Any) -> Message:
    """As the bus sends it on, with the name of who has sent it."""
    message.header.fields[HeaderFields.sender] = sender
    for name, value in fields.items():
        message.header.fields[HeaderFields[name]] = value
    return message


def started(call: Message) -> Message:
    return of(SYSTEMD, new_method_return(call, "o", (JOB,)))


def ended(sender: str, result: str = "done") -> Message:
    address = jeepney.DBusAddress(PATH, interface="org.freedesktop.systemd1.Manager")
    return of(sender, new_signal(address, "JobRemoved", "uoss", (7, JOB, UNIT.name, result)))


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setattr(os.path, "isdir", lambda _: True)
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={directory}/bus")
        monkeypatch.setattr(systemd, "PATIENCE", 1.0)
        made = Bus(f"{directory}/bus")
        yield made
        made.close()


def start() -> None:
    with Systemd() as manager:
        manager.start(UNIT, 1, ())


def test_a_job_has_ended_when_systemd_says_so(bus: Bus) -> None:
    start()
    assert ("StartTransientUnit", SYSTEMD) in bus.called


def test_another_s_word_that_a_job_has_ended_is_not_believed(bus: Bus) -> None:
    bus.says["StartTransientUnit"] = lambda call: [started(call), ended(ATTACKER)]
    with pytest.raises(HostError, match=r"the job of StartTransientUnit for box\.scope does not end"):
        start()
    bus.says["StartTransientUnit"] = lambda call: [ended(ATTACKER, "failed"), started(call), ended(SYSTEMD)]
    start()
    bus.says["StartTransientUnit"] = lambda call: [started(call), ended(ATTACKER), ended(SYSTEMD, "failed")]
    with pytest.raises(HostError, match="ended as 'failed'"):
        start()


def test_a_job_that_ends_before_its_call_returns_is_not_missed_among_others(bus: Bus) -> None:
    def others() -> Message:
        message = ended(SYSTEMD)
        return Message(message.header, (8, "/another/job", "another.scope", "done"))

    bus.says["StartTransientUnit"] = lambda call: [ended(SYSTEMD), others(), started(call), others()]
    start()


@pytest.mark.parametrize("kind", [MessageType.method_return, MessageType.error, MessageType.signal])
def test_another_s_reply_is_none(bus: Bus, kind: MessageType) -> None:
    def forged(call: Message) -> list[Message]:
        message = of(ATTACKER, new_method_return(call, "o", ("/no/job",)))
        if kind == MessageType.error:
            message = of(ATTACKER, new_error(call, "no.such.Error"))
        if kind == MessageType.signal:
            message = of(ATTACKER, ended(ATTACKER), reply_serial=call.header.serial)
        return [message, started(call), ended(SYSTEMD)]

    bus.says["StartTransientUnit"] = forged
    start()


def test_who_is_kept_waiting_by_others_words_waits_no_longer(bus: Bus) -> None:
    def chatter(call: Message) -> list[Message]:
        time.sleep(0.7)
        return [started(call), *[ended(ATTACKER)] * 100]

    bus.says["StartTransientUnit"] = chatter
    before = time.monotonic()
    with pytest.raises(HostError, match="does not end"):
        start()
    assert time.monotonic() - before < 1.6  # one deadline for the call and for its job


def test_a_systemd_that_was_executed_anew_is_found_under_its_new_name(bus: Bus) -> None:
    with Systemd() as manager:
        bus.owner = ":1.2"
        bus.says["StopUnit"] = lambda call: (
            [of("org.freedesktop.DBus", new_error(call, "org.freedesktop.DBus.Error.ServiceUnknown"))]
            if call.header.fields[HeaderFields.destination] == SYSTEMD
            else [of(":1.2", new_method_return(call, "o", (JOB,))), ended(SYSTEMD), ended(":1.2")]
        )
        manager.stop(UNIT.name)
        assert bus.called[-1] == ("ResetFailedUnit", ":1.2")


def test_a_systemd_that_is_just_coming_to_the_bus_is_waited_for(bus: Bus) -> None:
    def unknown(call: Message) -> list[Message]:
        return [of("org.freedesktop.DBus", new_error(call, "org.freedesktop.DBus.Error.NameHasNoOwner"))]

    def come(call: Message) -> list[Message]:
        del bus.says["GetNameOwner"]
        return [of("org.freedesktop.DBus", new_method_return(call, "u", (1,)))]

    bus.says.update(GetNameOwner=unknown, StartServiceByName=come)
    start()


def test_without_systemd_on_the_bus_it_is_told(bus: Bus) -> None:
    bus.says["GetNameOwner"] = lambda call: [
        of("org.freedesktop.DBus", new_error(call, "org.freedesktop.DBus.Error.NameHasNoOwner"))
    ]
    bus.says["StartServiceByName"] = bus.says["GetNameOwner"]
    with pytest.raises(Refused, match="NameHasNoOwner"):
        start()
