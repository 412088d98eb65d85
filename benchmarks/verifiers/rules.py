"""What a rule is, and the two collections of them: right.py and wrong.py.

A rule takes a reference and gives another text, or None where it does not apply or where the label
would not be certain. A content rule gives what stands in the box, a completion rule the whole
completion.
"""

from collections.abc import Callable
from random import Random

from references import Reference

Rule = Callable[[Reference, Random], str | None]
Kinds = str | tuple[str, ...]


class Rules:
    """Rules of one label, each as (kind of reference, name, rule), in the order they were added."""

    def __init__(self) -> None:
        """Begin with no rule."""
        self.content_rules: list[tuple[str, str, Rule]] = []
        self.completion_rules: list[tuple[str, str, Rule]] = []

    def content(self, kinds: Kinds, name: str) -> Callable[[Rule], Rule]:
        """Add the decorated function as a content rule."""
        return self._add(self.content_rules, kinds, name)

    def completion(self, kinds: Kinds, name: str) -> Callable[[Rule], Rule]:
        """Add the decorated function as a completion rule."""
        return self._add(self.completion_rules, kinds, name)

    def table(self, kinds: Kinds, rows: dict[str, Rule]) -> None:
        """Add several content rules of one line each."""
        for name, rule in rows.items():
            self.content(kinds, name)(rule)

    @staticmethod
    def _add(rules: list[tuple[str, str, Rule]], kinds: Kinds, name: str) -> Callable[[Rule], Rule]:
        def add(rule: Rule) -> Rule:
            rules.extend(
                (kind, name, rule) for kind in ((kinds,) if isinstance(kinds, str) else kinds)
            )
            return rule

        return add
