"""A graph of Dask whose tasks are functions that nobody trusts: each runs in a container. Needs dask and cloudpickle.

What comes back is plain data, and is not unpickled here.
"""

from __future__ import annotations

import os

from dask.delayed import __file__ as place
from dask.delayed import delayed

from cycontainer import ContainerExecutor

TEXTS = ("to be or not to be", "that is the question", "whether it is nobler")
INSTALLED = os.path.dirname(os.path.dirname(place))  # tasks import dask, and only from here


@delayed  # type: ignore[untyped-decorator]  # dask has no types
def count(text: str) -> dict[str, int]:
    words = text.split()
    return {word: words.count(word) for word in words}


@delayed  # type: ignore[untyped-decorator]
def merge(counts: list[dict[str, int]]) -> dict[str, int]:
    return {word: sum(each.get(word, 0) for each in counts) for word in set().union(*counts)}


@delayed  # type: ignore[untyped-decorator]
def surroundings() -> tuple[int, list[str]]:
    return os.getpid(), os.listdir("/home")


def main() -> None:
    with ContainerExecutor(2, timeout=60, paths=[INSTALLED]) as executor:
        counts = merge([count(text) for text in TEXTS]).compute(scheduler=executor)
        pid, homes = surroundings().compute(scheduler=executor)
        print("to:", counts["to"], "is:", counts["is"], "words:", len(counts))
        print(f"a task is process {pid}, and sees the homes {homes}")


if __name__ == "__main__":
    main()
