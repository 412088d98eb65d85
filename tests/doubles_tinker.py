"""A real Tinker server for tests: SkyRL's, on its JAX back end, on the CPU.

It lives in an environment of its own, `.venv-skyrl` (`make tinker-server` builds it) or the one
that the variable RLOOP_SKYRL names. By itself: python tests/doubles_tinker.py MODEL FOLDER PORT
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from rloop.policies.prepare import prepare_policy
from rloop.recipe.config import Recipe
from rloop.recipe.engine import EngineConfig, TinkerConfig

ROOT = Path(__file__).parents[1]
SERVER_PYTHON = Path(os.environ.get("RLOOP_SKYRL", ROOT / ".venv-skyrl")) / "bin" / "python"
WHY_SKIPPED = f"no Tinker server: {SERVER_PYTHON} is not there; `make tinker-server` builds it"
UV = f"""#!/bin/sh
# SkyRL starts its second process by `uv run --extra ... -m MODULE ...`, and asks that it is started
# in that way itself. This stands in for uv: the environment's own Python does it.
while [ "$1" != "-m" ]; do shift; done
if [ "$2" = skyrl.tinker.engine ]; then exec {SERVER_PYTHON} "$@"; fi
{SERVER_PYTHON} "$@"
"""
COUNTED = ("asample", "forward", "forward_backward", "optim_step", "save_weights")
Answer = tuple[int, Any]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rloop" / "jax"


class TinkerServer:
    """One server process with its files in a folder; it may be killed and started again."""

    def __init__(self, model: Path, folder: Path, *, port: int | None = None) -> None:
        """Serve the model directory; nothing is started yet."""
        self.model = model
        self.port = port or free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        uv = self._folder / "bin" / "uv"
        uv.parent.mkdir(exist_ok=True)
        uv.write_text(UV)
        uv.chmod(0o755)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [uv, "run", "-m", "skyrl.tinker.api", *self._options()],
                env=self._environment(uv.parent),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "server.log").read_text()[-2000:])
            time.sleep(0.2)

    def _options(self) -> list[str]:
        config = (
            '{"max_lora_adapters": 32, "max_lora_rank": 8, "sample_max_num_sequences": 32, '
            '"train_micro_batch_size": 8}'
        )
        return [
            *("--host", "127.0.0.1", "--port", str(self.port), "--backend", "jax"),
            *("--base-model", str(self.model), "--backend-config", config),
            *("--checkpoints-base", str(self._folder / "checkpoints")),
            *("--database-url", f"sqlite:///{self._folder / 'server.db'}"),
        ]

    def _environment(self, bin_folder: Path) -> Mapping[str, str]:
        return os.environ | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": "",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(CACHE),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "CUDA_VISIBLE_DEVICES": "",
        }

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return httpx.get(f"{self.url}/api/v1/healthz", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """End all its processes at once, by SIGKILL."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class ScriptedServer:
    """A server that gives the answers it was told, one after the other, and keeps what it was
    asked. None breaks the connection off.
    """

    def __init__(self) -> None:
        self.answers: list[Answer | None] = []
        self.asked: list[tuple[str, dict[str, Any], Mapping[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(length) or b"{}")
                outer.asked.append((self.path, body, dict(self.headers)))
                answer = outer.answers.pop(0)
                if answer is None:
                    self.connection.close()
                    return
                self.send_response(answer[0])
                if isinstance(answer[1], str):
                    self.send_header("location", answer[1])
                    self.end_headers()
                    return
                data = answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode()
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class Between:
    """A proxy before a server: it calls `act` once, at the number-th request that trains, samples
    or saves, before or after it is handed on.
    """

    def __init__(self, url: str, number: int, act: Callable[[], None], *, is_after: bool) -> None:
        """Count requests from 1."""
        self.seen = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                is_now = False
                if self.path.endswith(COUNTED):
                    with lock:
                        outer.seen += 1
                        is_now = outer.seen == number
                if is_now and not is_after:
                    act()
                try:
                    answer = httpx.request(
                        self.command,
                        f"{url}{self.path}",
                        content=body,
                        timeout=None,
                        headers={"content-type": "application/json"},
                    )
                except httpx.HTTPError:
                    self.close_connection = True  # what a killed server does
                    return
                if is_now and is_after:
                    act()
                with suppress(OSError):
                    self.send_response(answer.status_code)
                    for name in ("content-type", "location"):
                        if name in answer.headers:
                            self.send_header(name, answer.headers[name])
                    self.send_header("content-length", str(len(answer.content)))
                    self.end_headers()
                    self.wfile.write(answer.content)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def on_server(recipe: Recipe, server: TinkerServer, **values: Any) -> Recipe:
    """Return the recipe with the server's model and the Tinker engine, with values of its own."""
    values = {"base_url": server.url, "rank": 4, "patience_s": 20.0, **values}
    engine = EngineConfig(name="tinker", tinker=TinkerConfig.model_validate(values))
    policy = recipe.policy.model_copy(update={"path": str(server.model)})
    return recipe.model_copy(update={"engine": engine, "policy": policy})


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    source, place, port = sys.argv[1:]
    folder = Path(place).resolve()
    model = prepare_policy(
        source, folder / "model", seed=0, trust_remote_code=False, needs_chat_template=False
    )
    server = TinkerServer(model.resolve(), folder, port=int(port))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.start()
        sys.stderr.write(f"{server.url} serves {server.model}; Ctrl-C ends it.\n")
        signal.pause()
    except KeyboardInterrupt:
        server.kill()
