"""The way between rloop and the first worker: a queue inside one process, or a local socket."""

import queue
import select
import socket
from typing import Protocol

from rloop.engines.trl.messages import Message, from_json, to_json


class Channel(Protocol):
    """One end of the way."""

    def send(self, message: Message) -> None:
        """Hand over a message; OSError says that nobody is there to take it."""
        ...

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message, None when there is none in time; EOFError at the end."""
        ...


class QueueChannel:
    """An end inside one process."""

    def __init__(self, incoming: "queue.Queue[Message]", outgoing: "queue.Queue[Message]") -> None:
        """Take from one queue and put into the other."""
        self._incoming, self._outgoing = incoming, outgoing

    def send(self, message: Message) -> None:
        """Put the message into the queue."""
        self._outgoing.put(message)

    def receive(self, timeout_s: float) -> Message | None:
        """Take the next message out of the queue."""
        try:
            return self._incoming.get(timeout=timeout_s)
        except queue.Empty:
            return None


def queue_pair() -> tuple[QueueChannel, QueueChannel]:
    """Return both ends of a way inside one process."""
    there: queue.Queue[Message] = queue.Queue()
    back: queue.Queue[Message] = queue.Queue()
    return QueueChannel(back, there), QueueChannel(there, back)


class SocketChannel:
    """An end between two processes: a line of JSON a message."""

    def __init__(self, connection: socket.socket) -> None:
        """Use a connected socket."""
        self._connection = connection
        self._buffer = bytearray()

    def send(self, message: Message) -> None:
        """Write the message as one line."""
        self._connection.sendall(to_json(message) + b"\n")

    def receive(self, timeout_s: float) -> Message | None:
        """Read the next line; EOFError when the other process is gone."""
        while (end := self._buffer.find(b"\n")) < 0:
            readable, _, _ = select.select([self._connection], [], [], timeout_s)
            if not readable:
                return None
            try:
                part = self._connection.recv(1 << 20)
            except ConnectionError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            self._buffer += part
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return from_json(line)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
