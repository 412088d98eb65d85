"""The workers as rloop sees them: started late, asked one thing at a time, closed at the end."""

import logging
import threading
from typing import Protocol

from rloop.config import Recipe
from rloop.engines.trl.channel import queue_pair
from rloop.engines.trl.messages import WORKER_LOST, Close, Failed, Message

CLOSE_S = 10.0
"""Workers that have not ended so long after `Close` are left alone, or killed (seconds)."""


_log = logging.getLogger(__name__)


class Workers(Protocol):
    """All workers of a run."""

    def ask(self, command: Message) -> Message:
        """Return the answer to a command: `Failed` when the workers can do no more."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class OwnWorker:
    """The only worker, or the first of a user's own launcher: a thread of this process."""

    def __init__(self, recipe: Recipe) -> None:
        """Start it; TRL is imported there."""
        self._channel, self._theirs = queue_pair()
        self._recipe = recipe
        self._thread = threading.Thread(target=self._work, name="trl", daemon=True)
        self._thread.start()

    def ask(self, command: Message) -> Message:
        """Return the answer; the thread tells what went wrong before it ends."""
        self._channel.send(command)
        while (answer := self._channel.receive(1.0)) is None:
            if not self._thread.is_alive():
                return Failed(error="EngineError", message="TRL's thread has ended.")
        if isinstance(answer, Failed) and answer.error == WORKER_LOST:
            said = f"TRL's workers could not go on: {answer.message}."
            return Failed(error="EngineError", message=said)
        return answer

    def close(self) -> None:
        """Let the thread end."""
        self._channel.send(Close())
        self._thread.join(CLOSE_S)

    def _work(self) -> None:
        from rloop.engines.trl.worker import serve

        try:
            serve(self._recipe, self._theirs)
        except Exception:  # noqa: BLE001 - TRL's own, told in a sentence already
            _log.debug("TRL's worker has ended", exc_info=True)
