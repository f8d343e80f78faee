"""Fixtures for other people's tests: `container_run` and `container`; pytest finds them by an entry point. Face."""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any, Final

    from cycontainer._result import Result
    from cycontainer.lifecycle import Container

PATIENCE: Final = 60.0  # seconds


@pytest.fixture
def container_run() -> Callable[..., Result]:
    """`cycontainer.run()`, with a timeout of a minute unless another is given.

    def test_it_runs_on_an_empty_home(container_run):
        assert container_run(["my-program", "--version"]).returncode == 0
    """
    from cycontainer import run

    def run_in_time(args: Any, **keywords: Any) -> Result:
        return run(args, **{"timeout": PATIENCE, **keywords})

    return run_in_time


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Callable[..., Container]]:
    """Makes containers, which are deleted with all that is in them when the test is over, however it ends.

    def test_the_service_answers(container):
        service = container(config, stdout=cycontainer.PIPE)
        service.start()

    It takes a configuration of the runtime-spec, and the keywords of `Container.create`.
    """
    from cycontainer.lifecycle import Container

    made: list[Container] = []

    def create(config: Mapping[str, Any], **keywords: Any) -> Container:
        wishes = {"root": str(tmp_path / "containers"), "bundle": str(tmp_path), **keywords}
        one = Container.create(f"test-{len(made)}", config, **wishes)
        made.append(one)
        return one

    yield create
    for one in reversed(made):
        one.delete(force=True)
