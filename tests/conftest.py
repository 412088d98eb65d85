"""Threads as `rloop` itself sets them, before any test imports torch: spinning ones take the core
from those that work, and made these tests three times slower on a busy machine.
"""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from doubles_tinker import SERVER_PYTHON, WHY_SKIPPED, TinkerServer
from hypothesis import settings

from rloop.threads import set_threads

set_threads()
# What takes 2 ms alone took 300 ms beside other programs: a time says nothing about these tests.
settings.register_profile("rloop", deadline=None)
settings.load_profile("rloop")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium driven by Playwright; tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
    with playwright.sync_playwright() as driver:
        try:
            found = driver.chromium.launch(
                executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"]
            )
        except playwright.Error as error:
            pytest.skip(f"needs a Chromium on the PATH or in RLOOP_CHROMIUM: {error.message:.80}")
        yield found
        found.close()


def find_chromium() -> str | None:
    """Return the machine's Chromium; None leaves it to Playwright to find its own."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("RLOOP_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def tinker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinkerServer]:
    """SkyRL's server of a tiny random Qwen3; tests are skipped where it is not installed."""
    if not SERVER_PYTHON.exists():
        pytest.skip(WHY_SKIPPED)
    from rloop.policies.random_model import write_random_model

    folder = tmp_path_factory.mktemp("tinker")
    write_random_model("qwen3-1x32", folder / "model", seed=0)
    server = TinkerServer(folder / "model", folder / "server")
    server.start()
    yield server
    server.kill()
