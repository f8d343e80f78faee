"""Launching: clone3 into namespaces and a cgroup, straight on to the init."""

FAILED: int
SYNC: int
READY: int
ENDED: int
CLONED: int
TERMINAL: int
MOUNT: int
PROGRAM: int
GATE: int
LISTENER: int

class HeldSignals:
    """A block in which this thread takes no signal."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

class Child:
    """A process that was launched: its pid, its pidfd and the socket to its init, which this object owns."""

    @property
    def pid(self) -> int: ...
    @property
    def pidfd(self) -> int: ...
    @property
    def socket(self) -> int: ...
    terminal: int
    program: int
    gate: int
    listener: int
    def close(self) -> None: ...
    def abandon(self) -> None: ...
    def settled(self) -> None: ...
    def adopt(self) -> None: ...
    def take(self, pidfd: int) -> None: ...
    def send_signal(self, number: int) -> None: ...
    def hear(self, timeout: float) -> bool: ...
    def receive(self) -> tuple[int, ...] | None: ...
    def answer(self, error: int, descriptors: tuple[int, ...]) -> None: ...

def spawn(
    init: int,
    plan: int,
    program: tuple[int, ...],
    slots: tuple[int, ...],
    flags: int,
    cgroup: int = -1,
    ambient: bool = False,
) -> Child: ...
