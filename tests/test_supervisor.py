"""System calls of a container that Python callables answer: on the real kernel, by programs that make the calls."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import document
from ordinary import OrdinaryUser
from test_seccomp import has_i386, int80

from cycontainer import Call, CallGone, ConfigError, Continue, Descriptor, Errno, LaunchError, Value, run
from cycontainer.errors import HookError
from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL, PIPE
from cycontainer.supervisor import Answer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
LIBC = "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True); "


def python(program: str, **supervisor: object) -> tuple[str, str]:
    """What a Python program on the host's root prints, with its system calls supervised."""
    result = run(["/usr/bin/python3", "-I", "-S", "-c", LIBC + program], supervisor=supervisor, text=True)  # type: ignore[arg-type]  # callables
    return str(result.stdout), str(result.stderr)


def test_each_kind_of_answer_reaches_the_caller() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"through a descriptor of ours")
    answers = {
        "getppid": lambda call: Value(number=4711),
        "mkdir": lambda call: Errno(code=errno.EXDEV),
        "rmdir": lambda call: Continue(),
        "epoll_create1": lambda call: Descriptor(fd=reader),
    }
    program = """
print(os.getppid())
for call in (os.mkdir, os.rmdir):
    try: call("/tmp/none")
    except OSError as error: print(error.errno)
fd = libc.epoll_create1(0)
print(os.read(fd, 100).decode(), os.get_inheritable(fd))
"""
    try:
        output, errors = python(program, **answers)
    finally:
        os.close(reader)
        os.close(writer)
    assert (output.splitlines(), errors) == (
        ["4711", str(errno.EXDEV), str(errno.ENOENT), "through a descriptor of ours False"],
        "",
    )


def test_a_call_shows_its_arguments_and_its_callers_memory_and_descriptors() -> None:
    seen: list[tuple[str, bytes, bytes, bytes, int]] = []

    def mkdir(call: Call) -> Answer:
        fd = call.descriptor(3)
        with open(fd, "rb") as file:
            seen.append((call.name, call.text(call.args[0]), call.read(call.args[0], 5), file.read(), call.args[1]))
        return Value(number=0)

    program = "r, w = os.pipe(); os.write(w, b'piped'); os.close(w); assert r == 3; os.mkdir('/a/long/name', 0o750)"
    assert python(program, mkdir=mkdir) == ("", "")
    assert seen == [("mkdir", b"/a/long/name", b"/a/lo", b"piped", 0o750)]


def test_a_string_that_ends_with_its_page_is_read_to_there() -> None:
    seen: list[object] = []

    def mkdir(call: Call) -> Answer:
        try:
            seen.append(call.text(call.args[0]))
        except OSError as error:
            seen.append(error.errno)
        return Value(number=0)

    program = """
import mmap
pages = mmap.mmap(-1, 8192)
address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
libc.munmap(ctypes.c_void_p(address + 4096), 4096)
pages[4090:4096] = b"/last\\0"
libc.mkdir(ctypes.c_void_p(address + 4090), 0)
pages[4095:4096] = b"!"
libc.mkdir(ctypes.c_void_p(address + 4090), 0)
libc.mkdir(ctypes.c_void_p(8), 0)
libc.mkdir(ctypes.c_void_p(2**64 - 1), 0)
os._exit(0)
"""
    python(program, mkdir=mkdir)
    assert seen == [b"/last", errno.EIO, errno.EIO, errno.EFAULT]


@pytest.mark.skipif(not has_i386(), reason="this kernel does not take i386's calls")
def test_a_call_of_i386_that_once_had_no_number_is_asked_about_too() -> None:
    """socket(2) is 359 there; through socketcall(2), 102, nobody sees what is asked for."""
    program = f"import ctypes, mmap\n{inspect.getsource(int80)}\nprint(int80(359, 2, 1), int80(102, 1, 0))"
    assert python(program, socket=lambda call: Value(number=call.args[0] + 40))[0] == f"42 {-errno.ENOSYS}\n"


def test_threads_and_children_are_asked_about_too() -> None:
    pids: set[int] = set()

    def mkdir(call: Call) -> Answer:
        pids.add(call.pid)
        return Value(number=0)

    program = """
import _thread
done = _thread.allocate_lock(); done.acquire()
_thread.start_new_thread(lambda: (os.mkdir("/t"), done.release()), ())
done.acquire()
if os.fork() == 0: os.mkdir("/c"); os._exit(0)
os.wait(); os.mkdir("/p")
"""
    assert python(program, mkdir=mkdir) == ("", "")
    assert len(pids) == 3


def test_what_a_callable_raises_ends_the_container_and_is_raised() -> None:
    def mkdir(call: Call) -> Answer:
        raise ZeroDivisionError("a fault of the callable")

    with pytest.raises(ZeroDivisionError, match="a fault of the callable"):
        python("import time; os.mkdir('/x'); time.sleep(60)", mkdir=mkdir)
    with pytest.raises(TypeError, match="must return Continue"):
        python("os.mkdir('/x')", mkdir=lambda call: None)


def test_a_call_that_is_given_up_is_known_to_be() -> None:
    gone: list[object] = []

    def mkdir(call: Call) -> Answer:
        os.kill(call.pid, signal.SIGKILL)
        while call.is_waiting():
            os.sched_yield()
        for read in (call.read, call.text):
            with pytest.raises(CallGone, match="mkdir"):
                read(call.args[0], 1)
        with pytest.raises(CallGone):
            call.descriptor(0)
        gone.append(True)
        call.check()
        return Continue()

    program = "if os.fork() == 0: os.mkdir('/x'); print('never')\nprint(os.waitstatus_to_exitcode(os.wait()[1]))"
    assert python(f"\n{program}", mkdir=mkdir) == ("-9\n", "")
    assert gone == [True]


def test_a_caller_that_may_have_no_more_descriptors_gets_an_errno() -> None:
    program = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
for _ in range(2):
    fd = libc.epoll_create1(0)
    print(fd, ctypes.get_errno())
"""
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        output, errors = python(program, epoll_create1=lambda call: Descriptor(fd=fd))
    finally:
        os.close(fd)
    assert (output.split(), errors) == (["-1", str(errno.EMFILE)] * 2, "")


@pytest.mark.parametrize("name", ["write", "exit", "exit_group"])
def test_what_the_init_needs_is_never_asked_about(name: str) -> None:
    with pytest.raises(ConfigError, match=f"SCMP_ACT_NOTIFY cannot be used for the {name} syscall"):
        run(["true"], supervisor={name: lambda call: Continue()})


def test_an_unknown_system_call_is_refused() -> None:
    with pytest.raises(ConfigError, match="no-such-call is no system call here"):
        run(["true"], supervisor={"no-such-call": lambda call: Continue()})


def test_the_programs_own_execve_can_be_refused() -> None:
    with pytest.raises(LaunchError) as failure:
        run(["true"], supervisor={"execve": lambda call: Errno(code=errno.EACCES)})
    assert failure.value.errno == errno.EACCES


def test_the_program_has_no_descriptor_of_its_supervision() -> None:
    output, _ = python("print(sorted(os.listdir('/proc/self/fd')))", mkdir=lambda call: Continue())
    assert output == "['0', '1', '2', '3']\n"


def test_without_an_init_too() -> None:
    result = run(
        ["/usr/bin/python3", "-I", "-S", "-c", "import os; print(os.getppid())"],
        supervisor={"getppid": lambda call: Value(number=5)}, init=False,
    )  # fmt: skip
    assert result.stdout == b"5\n"


def test_an_ordinary_user_can_supervise(ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user(python, "print(os.getppid())", getppid=number_seven) == ("7\n", "")


def number_seven(call: Call) -> Answer:
    return Value(number=7)


# --- a container


def mkdir_refused(call: Call) -> Answer:
    return Errno(code=errno.EXDEV)


@pytest.fixture
def container(busybox_rootfs: str, tmp_path: Path, no_new_privileges: bool) -> Iterator[Container]:
    config = document(busybox_rootfs, "mkdir /dev/shm/x; read x; mkdir /dev/shm/y; read x")
    config["process"]["noNewPrivileges"] = no_new_privileges
    with Container.create(
        "supervised", config, root=f"{tmp_path}/states", stdin=PIPE, stdout=PIPE, stderr=PIPE,
        supervisor={"mkdir": mkdir_refused},
    ) as container:  # fmt: skip
        yield container


both = pytest.mark.parametrize("no_new_privileges", [True, False])


@pytest.mark.root
@both
def test_a_container_and_what_is_executed_in_it_are_supervised(container: Container) -> None:
    container.start()
    assert container.process is not None and container.process.stderr is not None
    assert b"Invalid cross-device link" in container.process.stderr.readline()
    for _ in range(2):
        with container.exec(["mkdir", "/dev/shm/z"], stdin=DEVNULL, stderr=PIPE) as process:
            assert b"Invalid cross-device link" in process.communicate()[1]
    assert container.process.stdin is not None
    container.process.stdin.write(b"\n")
    container.process.stdin.flush()
    assert b"Invalid cross-device link" in container.process.stderr.readline()


@pytest.mark.root
@both
def test_no_other_program_starts_a_supervised_container_or_executes_in_it(container: Container) -> None:
    command = [sys.executable, "-m", "cycontainer", "--root", container.root]
    for words in (["start", "supervised"], ["exec", "supervised", "true"]):
        done = subprocess.run([*command, *words], capture_output=True, text=True)
        assert done.returncode and "only the program that created the container answers" in done.stderr
    container.start()


@pytest.mark.root
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_callable_that_raises_ends_its_container(
    busybox_rootfs: str, tmp_path: Path, no_new_privileges: bool
) -> None:
    def raises(call: Call) -> Answer:
        raise ZeroDivisionError("a fault of the callable")

    config = document(busybox_rootfs, "mkdir /dev/shm/x; sleep 100")
    config["process"]["noNewPrivileges"] = no_new_privileges
    with Container.create(
        "faulty", config, root=f"{tmp_path}/states", stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL,
        supervisor={"mkdir": raises},
    ) as container:  # fmt: skip
        container.start()
        with pytest.raises(ZeroDivisionError, match="a fault of the callable"):
            container.wait(20)


@pytest.mark.root
@pytest.mark.parametrize(("no_new_privileges", "call"), [(True, "execve"), (False, "setresuid")])
def test_a_callable_that_raises_before_the_program_is_there_is_raised(
    busybox_rootfs: str, tmp_path: Path, no_new_privileges: bool, call: str
) -> None:
    def raises(call: Call) -> Answer:
        raise ZeroDivisionError("a fault of the callable")

    config = document(busybox_rootfs)
    config["process"]["noNewPrivileges"] = no_new_privileges
    with (
        pytest.raises(ZeroDivisionError, match="a fault of the callable"),
        Container.create(
            "faulty", config, root=f"{tmp_path}/states", stdin=DEVNULL, supervisor={call: raises}
        ) as container,
    ):
        container.start()
    assert not os.path.exists(f"{tmp_path}/states/faulty")


@pytest.mark.root
def test_a_supervised_containers_hook_inside_is_supervised(busybox_rootfs: str, tmp_path: Path) -> None:
    config = document(busybox_rootfs, "true")
    hook = {"path": "/bin/mkdir", "args": ["mkdir", "/dev/shm/hook"]}
    config["hooks"] = {"startContainer": [hook]}
    with (
        Container.create(
            "hooked", config, root=f"{tmp_path}/states", stdin=DEVNULL, supervisor={"mkdir": mkdir_refused}
        ) as container,
        pytest.raises(HookError, match="Invalid cross-device link"),
    ):
        container.start()


@pytest.mark.root
def test_a_supervisor_ends_with_its_container(busybox_rootfs: str, tmp_path: Path) -> None:
    before = threading.active_count()
    with Container.create(
        "ends", document(busybox_rootfs, "true"), root=f"{tmp_path}/states", stdin=DEVNULL,
        supervisor={"mkdir": mkdir_refused},
    ) as container:  # fmt: skip
        container.start()
        container.wait(20)
    assert threading.active_count() == before
