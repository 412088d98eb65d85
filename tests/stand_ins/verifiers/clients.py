"""A client that cannot be made."""

from abc import ABC, abstractmethod


class Client(ABC):
    @abstractmethod
    def close(self):
        """Never called."""
