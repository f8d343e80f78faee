"""Parts of a run under pytest-benchmark: `python -m pytest bench`, as root; no part of the normal test run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import workload
from pytest_benchmark.fixture import BenchmarkFixture

from cycontainer import run
from cycontainer.compile import compile_plan
from cycontainer.host import probe
from cycontainer.read_config import read_config

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = os.path.join(tmp_path_factory.mktemp("bench"), "rootfs")
    workload.make_rootfs(path)
    return path


def test_run_in_the_default_isolation(benchmark: BenchmarkFixture, rootfs: str) -> None:
    assert benchmark(run, ["/bin/true"], rootfs=rootfs).returncode == 0


def test_run_with_limits_and_a_configuration(benchmark: BenchmarkFixture, rootfs: str) -> None:
    config = workload.config(rootfs, "/bench")
    options = {"config": config, "memory": workload.MEMORY, "pids": workload.PIDS}
    assert benchmark(run, ["/bin/true"], rootfs=rootfs, **options).returncode == 0


def test_the_zero_line_is_a_program_without_isolation(benchmark: BenchmarkFixture, rootfs: str) -> None:
    program = os.path.join(rootfs, "bin/true")

    def spawn() -> int:
        return os.waitpid(os.posix_spawn(program, [program], {}), 0)[1]

    assert benchmark(spawn) == 0


def test_reading_a_configuration(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    value = workload.config(str(tmp_path), "/bench")
    assert benchmark(read_config, value, bundle=str(tmp_path)).hostname == "floor"


def test_compiling_a_configuration(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    config, host = read_config(workload.config(str(tmp_path), "/bench"), bundle=str(tmp_path)), probe()
    assert benchmark(compile_plan, config, host).attempts
