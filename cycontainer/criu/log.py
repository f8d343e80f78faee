"""CRIU's log: the lines of it that matter, and what a user can do about them. It reads one file."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

MOST_BYTES: Final = 4 << 20  # from the end: what matters is said last
MOST_LINES: Final = 40
BEFORE: Final = 3  # lines before each error that are shown with it

# Said whenever criu lacks CAP_SYS_RESOURCE, on success too.
HARMLESS: Final = ("Can't setup RLIMIT_NOFILE for self",)

FULL: Final = "the image directory's file system is full"
LEAST_ROOM: Final = 1 << 16  # bytes, for criu to say more

ADVICE: Final = (  # what a line says, and what can be done
    (
        "--tcp-established",
        "established TCP connections are saved and restored with --tcp-established (tcp_established)",
    ),
    ("Connected TCP socket in image", "restore with --tcp-established (tcp_established), or --tcp-close (tcp_close)"),
    ("In-flight connection", "connections being made are left out with --tcp-skip-in-flight (tcp_skip_in_flight)"),
    ("--file-locks", "file locks are saved and restored with --file-locks (file_locks)"),
    ("link-remap", "deleted files that have another name are saved with --link-remap (link_remap)"),
    ("--ext-unix-sk", "datagram sockets to the host are saved and restored with --ext-unix-sk (ext_unix_sk)"),
    ("half of stream unix connection", "a stream connection to a process outside of the container cannot be saved"),
    ("Can't lookup mount", "a process holds a file that no mount of the container shows"),
    (
        "Too many levels of symbolic links",
        "a standard descriptor that was opened with O_NOFOLLOW, as Python's tempfile does, cannot be replaced",
    ),
    ("No mapping for", "the image has a mount that the configuration lacks, or has as another kind"),
    (
        "doesn't have a proper root mount",
        "a mount of the container comes from elsewhere and is not in its configuration",
    ),
    ("Can't fork for", "a pid of the image is in use: another process has it, or the old one was not yet waited for"),
    ("Can't get 1:16 opt", "this criu is too old for this kernel: criu 4.2 or newer saves inet sockets on Linux 6.16"),
    ("lazy-pages.socket", "start `criu lazy-pages` with the same image and work directories before"),
    (
        "Invalid ELF magic",
        "the memory in the image is not what was saved: a restore with --auto-dedup has taken it out, or it is damaged",
    ),
    ("self vdso symtable", "this criu is too old for this kernel: install criu 4.2 or newer"),
    ("Can't get rlimit", "criu needs CAP_SYS_RESOURCE to save a process that is another user's than root's"),
    ("iptables-restore", 'install iptables, or use the network lock "nftables" (network_lock)'),
    ('execvp("tar"', "criu runs tar and gzip: install them, and have them in PATH"),
    ("No space left on device", FULL),
    ("has bad size", "a file has changed since the checkpoint: the root file system must be as it was"),
    ("ctty inheritance", "a shell that keeps /dev/tty open has a job in the foreground: criu cannot save that"),
    ("send_fds failed (-22)", "a process has an io_uring, which criu cannot save"),
    ("unix: Unix socket", "a process holds a socket of the host, or of another network namespace"),
    (
        "Abort restore of existing cgroups",
        "the container's cgroups are made before: strict has none to make; take soft",
    ),
    (
        "Unable to mount cgroup",
        "of a container with a user namespace the cgroups are ignored (manage_cgroups_mode) by both, or by none:"
        " the checkpoint and the restore",
    ),
    ("Unknown magic", "the image is damaged, or of another kind"),
    ("bytes while ", "the image is damaged: it ends too early"),
    ("Unexpected EOF", "the image is damaged: it ends too early"),
    ("dirty tracking", "this kernel cannot track memory (CONFIG_MEM_SOFT_DIRTY): no pre-dump, no parent image"),
)


def lines_of(path: str) -> list[str]:
    """The log's lines, those at the end where it is very long; none when there is no log."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - MOST_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def excerpt(lines: list[str]) -> tuple[str, ...]:
    """The lines that tell of errors, each with those before it; with their numbers, the last MOST_LINES of them."""
    kept: set[int] = set()
    for number, line in enumerate(lines):
        if "Error" in line and not any(words in line for words in HARMLESS):
            kept.update(range(max(0, number - BEFORE), number + 1))
    return tuple(f"{number + 1}: {lines[number]}" for number in sorted(kept)[-MOST_LINES:])


def advice(lines: Iterable[str], log: str) -> tuple[str, ...]:
    """What can be done about these lines, each advice once; where a log has no room, it does not say so itself."""
    text = "\n".join(lines)
    found = tuple(advice for words, advice in ADVICE if words in text)
    return (*found, FULL) if FULL not in found and _is_full(log) else found


def _is_full(path: str) -> bool:
    """Whether the file system of a file, which may be missing, has no room for more."""
    try:
        system = os.statvfs(os.path.dirname(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return system.f_bavail * system.f_frsize < LEAST_ROOM or (system.f_files > 0 and system.f_favail == 0)
