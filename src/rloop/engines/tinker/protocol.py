"""The Tinker protocol over HTTP: submit requests, wait for results, retry.

A request is POSTed and answered with an id; its result is fetched by long polling. The JSON is that
of the SDK 0.24.1. This module knows nothing about policies or losses.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from queue import SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from rloop.errors import EngineError, EngineUnavailable
from rloop.recipe.engine import TinkerConfig

logger = logging.getLogger(__name__)

KEY_VARIABLE = "TINKER_API_KEY"
SECRET_LENGTH = 8
"""A shorter key is any text for a server that needs none, and may stand in its other words."""
API = "/api/v1"
HEARTBEAT_S = 10.0
"""SkyRL drops the models of a session that is silent for five minutes."""
POLL_S = 330.0
"""Servers hold a poll open for up to five minutes."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
BUSY = frozenset({429, 500, 502, 503, 504})
REFUSED = frozenset({429, 503})
"""Those of `BUSY` after which a request has certainly not been done."""
NOT_YET = frozenset({408, 425})
NEEDED = (
    *("create_session", "create_model", "unload_model", "asample", "forward", "forward_backward"),
    *("optim_step", "save_weights", "save_weights_for_sampler", "load_weights", "retrieve_future"),
)
LEARNS = frozenset({"forward_backward", "optim_step"})
"""Requests that must not be done twice."""
SKYRL = "SkyRL"
SKYRL_TITLE = "Tinker API Mock"
DOCUMENTED_LOSSES = frozenset({"cross_entropy", "importance_sampling", "ppo", "cispo", "dro"})

Json = Mapping[str, Any]
Job = TypeVar("Job")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What a server supports, from its own schema (`/openapi.json`).

    Example: Offers(software="SkyRL", version="0.0.1", lacks=(), models=("Qwen/Qwen3-8B",),
    losses=frozenset({"ppo"}), clips_gradients=False, forgets_moments=False)
    """

    software: str
    version: str
    """Version of its API; empty if it does not say."""
    lacks: tuple[str, ...]
    """The requests that rloop needs and the server does not support."""
    models: tuple[str, ...]
    losses: frozenset[str]
    clips_gradients: bool
    """Whether an optimizer step takes `grad_clip_norm`."""
    forgets_moments: bool
    """Whether weights can be loaded without the optimizer's moments."""


class Server:
    """A session with a Tinker server. All errors are one-sentence `EngineError`s."""

    def __init__(self, config: TinkerConfig) -> None:
        """Connect lazily: only the first request can fail.

        Raises EngineUnavailable if a remote server needs a key and there is none.
        """
        self.url = config.base_url.rstrip("/")
        self._patience_s = config.patience_s
        self._key = key = os.environ.get(KEY_VARIABLE, "")
        host = urlsplit(self.url).hostname
        if not key and host not in ("localhost", "127.0.0.1", "::1"):
            raise EngineUnavailable(
                f"The Tinker server {self.url} needs a key: export {KEY_VARIABLE}=KEY."
            )
        self._client = httpx.Client(
            base_url=self.url,
            headers={"X-API-Key": key or "none"},
            timeout=httpx.Timeout(60.0, read=POLL_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )
        self._lock = threading.Lock()
        self._sequence = 0
        self._closed = threading.Event()

    @cached_property
    def session_id(self) -> str:
        """The session, which lives until `close`."""
        body = {"tags": ["rloop"], "user_metadata": None, "sdk_version": "0.24.1"}
        found = self.call("create_session", {**body, "type": "create_session"})
        session = str(found["session_id"])
        threading.Thread(target=self._beat, args=(session,), daemon=True).start()
        return session

    @cached_property
    def offers(self) -> Offers:
        """What the server supports; without a schema, what Tinker documents."""
        listed = self._answer("GET", f"{API}/get_server_capabilities").json()
        models = tuple(str(m.get("model_name")) for m in listed.get("supported_models", ()))
        schema: Json = {}
        with suppress(httpx.HTTPError, ValueError):
            found = self._client.get("/openapi.json", timeout=30)
            schema = found.json() if found.is_success else {}
        if not schema:
            return Offers(
                software="no published schema",
                version="",
                lacks=(),
                models=models,
                losses=DOCUMENTED_LOSSES,
                clips_gradients=True,
                forgets_moments=True,
            )
        about, paths = schema.get("info", {}), schema.get("paths", {})
        title = about.get("title", "")
        shapes = schema.get("components", {}).get("schemas", {})

        def properties(name: str) -> Json:
            found: Json = shapes.get(name, {}).get("properties", {})
            return found

        losses = properties("ForwardBackwardInput").get("loss_fn", {}).get("enum", ())
        return Offers(
            software=SKYRL if title == SKYRL_TITLE else title,
            version=str(about.get("version", "")),
            lacks=tuple(verb for verb in NEEDED if f"{API}/{verb}" not in paths),
            models=models,
            losses=frozenset(losses) or DOCUMENTED_LOSSES,
            clips_gradients="grad_clip_norm" in properties("AdamParams"),
            forgets_moments="optimizer" in properties("LoadWeightsRequest"),
        )

    def call(self, verb: str, body: Json) -> dict[str, Any]:
        """Send a request that is answered at once."""
        return dict(self._answer("POST", f"{API}/{verb}", body).json())

    def submit(self, verb: str, body: Json) -> str:
        """Submit a request that takes a while; return its id.

        A number in each request lets servers distinguish a repeated request from a new one. SkyRL
        0.3.0 does not.
        """
        return str(self.call(verb, {"seq_id": self.next_number(), **body})["request_id"])

    def next_number(self) -> int:
        """Return a number that this session has not used yet."""
        with self._lock:
            self._sequence += 1
            return self._sequence

    def result(self, request_id: str) -> dict[str, Any]:
        """Wait for a request's result."""
        while True:
            answer = self._answer("POST", f"{API}/retrieve_future", {"request_id": request_id})
            if answer.status_code in NOT_YET:
                continue
            found: dict[str, Any] = answer.json()
            if found.get("type") == "try_again":
                continue
            if "error" in found:
                raise self._refused(str(found["error"]))
            return found

    def do(self, verb: str, body: Json) -> dict[str, Any]:
        """Submit, and wait for the result."""
        return self.result(self.submit(verb, body))

    def tell(self, verb: str, body: Json) -> None:
        """Send a request once, without waiting for its result."""
        with suppress(httpx.HTTPError, RuntimeError):
            self._client.post(f"{API}/{verb}", json=body, timeout=HEARTBEAT_S)

    def download(self, path: str) -> bytes:
        """Return an archive that the server creates, from the address it then gives."""
        answer = self._answer("GET", f"{API}/{path}")
        if answer.is_redirect:
            place = str(answer.headers["location"])
        elif "json" in answer.headers.get("content-type", ""):
            place = str(answer.json()["url"])
        else:
            return answer.content
        # It may be another host's signed address, so the key is not sent.
        found = self._patiently(lambda: httpx.get(place, timeout=POLL_S), place.split("?")[0])
        self._check(found)
        return found.content

    def close(self) -> None:
        """End the session."""
        self._closed.set()
        self._client.close()

    def _beat(self, session: str) -> None:
        body = {"session_id": session, "type": "session_heartbeat"}
        while not self._closed.wait(HEARTBEAT_S):
            self.tell("session_heartbeat", body)

    def _answer(self, method: str, path: str, body: Json | None = None) -> httpx.Response:
        verb = path.rpartition("/")[2]
        answer = self._patiently(lambda: self._client.request(method, path, json=body), verb)
        self._check(answer)
        return answer

    def _patiently(self, send: Callable[[], httpx.Response], verb: str) -> httpx.Response:
        """Send until the server answers, with increasing pauses; in the end raise EngineError."""
        begin, pause, is_told = time.monotonic(), FIRST_PAUSE_S, False
        while True:
            try:
                answer = send()
                if answer.status_code not in BUSY:
                    return answer
                problem = f"answers {answer.status_code}"
                if verb in LEARNS and answer.status_code not in REFUSED:
                    raise self._uncertain(f"answers {answer.status_code} to {verb}")
            except httpx.ConnectError as error:
                problem = f"cannot be reached ({error})"
            except httpx.TransportError as error:
                problem = f"broke off {verb} ({type(error).__name__})"
                if verb in LEARNS:
                    raise self._uncertain(problem) from error
            waited = time.monotonic() - begin
            if waited + pause > self._patience_s:
                raise EngineError(
                    f"The Tinker server {self.url} {problem}, for {waited:.0f} s by now. Restart "
                    f"it or look at its log; `rloop resume` then continues from the last saved "
                    f"state. engine.tinker.patience_s sets how long rloop waits."
                )
            if not is_told:
                logger.warning("The Tinker server %s %s; trying again.", self.url, problem)
                is_told = True
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _uncertain(self, problem: str) -> EngineError:
        return EngineError(
            f"The Tinker server {self.url} {problem}, which may or may not have been done. "
            f"`rloop resume` continues from the last saved state."
        )

    def _check(self, answer: httpx.Response) -> None:
        """Raise EngineError with the server's own words if it refuses."""
        code = answer.status_code
        if code < 400 or code in NOT_YET:
            return
        if code in (401, 403):
            raise EngineUnavailable(
                f"The Tinker server {self.url} refuses the key in {KEY_VARIABLE} ({code})."
            )
        raise self._refused(_words(answer))

    def _refused(self, words: str) -> EngineError:
        words = words.strip().rstrip(".")
        if len(self._key) >= SECRET_LENGTH:
            words = words.replace(self._key, KEY_VARIABLE)
        if "not loaded" in words:
            return EngineError(
                f"The Tinker server {self.url} no longer has the model in training ({words}): it "
                f"was restarted, or removed the model. `rloop resume` continues from the last "
                f"saved state."
            )
        if "LoRA adapters" in words:
            words += (
                "; a killed run frees its place after some minutes (SkyRL: five), and `rloop "
                "resume` works then"
            )
        return EngineError(f"The Tinker server {self.url} refuses: {words}.")


def _words(answer: httpx.Response) -> str:
    """Return the message of a refusal."""
    try:
        found = answer.json()
    except ValueError:
        return f"{answer.status_code} {answer.text[:200]}"
    words = found.get("detail", found.get("error", found)) if isinstance(found, dict) else found
    if isinstance(words, list):  # pydantic's form: one entry per field
        words = "; ".join(str(one.get("msg", one)) for one in words)
    return f"{words} ({answer.status_code})"


def side_by_side(work: Callable[[Job], Found], jobs: Sequence[Job], limit: int) -> Iterator[Found]:
    """Yield the results of jobs as they finish, at most `limit` at a time.

    After an error no other job is begun; it is raised when those under way have ended.
    The threads are daemons, so a thread that waits for a server never keeps the process alive.
    """
    left, done = deque(jobs), SimpleQueue[Found | Exception]()

    def run() -> None:
        while True:
            try:
                job = left.popleft()
            except IndexError:
                return
            try:
                done.put(work(job))
            except Exception as error:  # noqa: BLE001 (raised where the results are taken)
                done.put(error)
                return

    for _ in range(min(limit, len(jobs))):
        threading.Thread(target=run, daemon=True).start()
    failure, waiting = None, len(jobs)
    try:
        while waiting:
            found = done.get()
            waiting -= 1
            if isinstance(found, Exception):
                failure = failure or found
                waiting -= _dropped(left)
            else:
                yield found
    finally:
        left.clear()
    if failure is not None:
        raise failure


def _dropped(left: deque[Job]) -> int:
    """Remove the jobs that no thread has begun; return their number."""
    number = 0
    with suppress(IndexError):  # a thread was first
        while left:
            left.popleft()
            number += 1
    return number
