"""A question that a file holds as chat messages, as verl and TRL do."""

import json
import re
from typing import Any

_JSON_MESSAGES = re.compile(r'\s*\[\s*\{\s*"(?:role|content)"\s*:')
_PYTHON_MESSAGES = re.compile(r"\s*\[\s*\{\s*'(?:role|content)'\s*:")


def read_question(value: object) -> tuple[str, dict[str, Any]]:
    """Return a prompt's question, nothing where there is none, and what else its messages say.

    The question is the last message of the user. The texts of system messages come back as
    `system_message`, all others as `other_messages`: they are not part of a prompt. ValueError says
    why messages cannot be read.

    Example: [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    -> ("1 + 1?", {"system_message": "Be brief."})
    """
    if isinstance(value, str) and _PYTHON_MESSAGES.match(value):
        raise ValueError("chat messages as Python text; save them as JSON or parquet")
    if isinstance(value, str) and _JSON_MESSAGES.match(value):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"chat messages as text that is not JSON ({error})") from error
    if isinstance(value, str):
        return value, {}
    messages = [value] if isinstance(value, dict) else value
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        return "", {}
    asked = [place for place, message in enumerate(messages) if message["role"] == "user"]
    if not asked:
        return "", {}
    rest = [message for place, message in enumerate(messages) if place != asked[-1]]
    system = [_content(message) for message in rest if message["role"] == "system"]
    others = [message for message in rest if message["role"] != "system"]
    said = {"system_message": "\n\n".join(system), "other_messages": others}
    return _content(messages[asked[-1]]), {name: held for name, held in said.items() if held}


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and "role" in value and "content" in value


def _content(message: dict[str, Any]) -> str:
    """Return a message's text; ValueError for a picture or a sound in it."""
    content = message["content"]
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("text") is None:
            kind = part.get("type") if isinstance(part, dict) else part
            raise ValueError(f"a message with a part of type {kind!r:.40}; only text can be asked")
        texts.append(str(part["text"]))
    return "".join(texts)
