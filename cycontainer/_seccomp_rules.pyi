"""What libseccomp would not say as it is meant: calls with several rules, and i386's calls that stand for many."""

from cycontainer.config import SyscallArgument

def alternatives(
    wide: bool, number: int, default: int, rules: list[tuple[int, tuple[SyscallArgument, ...]]]
) -> bytes: ...
def hidden_calls(default: int, rules: dict[str, list[tuple[int, tuple[SyscallArgument, ...]]]]) -> bytes: ...
