"""What libseccomp would not say as it is meant: calls with several rules, and i386's calls that stand for many."""

from collections.abc import Collection

from cycontainer.config import SyscallArgument

def alternatives(
    wide: bool, number: int, default: int, rules: list[tuple[int, str, tuple[SyscallArgument, ...]]]
) -> bytes: ...
def hidden_calls(
    default: int, flattened: list[tuple[int, str, tuple[SyscallArgument, ...]]], names: Collection[str]
) -> bytes: ...
