"""A scripted run of two iterations in a folder of runs, and a client of the viewer on a folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles_runs import begin, scripted, toy_recipe
from starlette.testclient import TestClient

from rloop.view.app import build_app


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run that no test may change."""
    folder = tmp_path_factory.mktemp("scripted")
    code, run_dir = begin(toy_recipe(folder), folder, scripted())
    assert code == 0
    return run_dir


@pytest.fixture
def runs(tmp_path: Path, finished: Path) -> Path:
    """A folder with one run, `toy`, that a test may change."""
    shutil.copytree(finished, tmp_path / "runs" / "toy", symlinks=True)
    return tmp_path / "runs"


@pytest.fixture
def client() -> Callable[..., Any]:
    """Return a client of the viewer on a folder."""

    def make(folder: Path) -> TestClient:
        return TestClient(build_app(folder), base_url="http://127.0.0.1:8787")

    return make
