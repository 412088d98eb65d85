"""What a model's files say of its prompts, read without transformers: template and tokenizer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rloop.policies.gguf_header import read_gguf_header, read_gguf_strings
from rloop.policies.model_size import find_model
from rloop.policies.prompts import CHARACTER_TEMPLATE, CHARACTER_TOKENS, added_prefix, with_prefix

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """What a model's files say of its prompts.

    Example: TokenizerFiles(chat_template="{{ bos_token }}...", special_tokens={"bos_token": "<s>"},
    tokenizer=Tokenizer(...))
    """

    chat_template: str | Mapping[str, str] | None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    """What counts tokens; None where it is not here as a `tokenizer.json`."""

    def count(self, text: str, *, is_own: bool) -> int:
        """Return a prompt's tokens; a recipe's own template gets what the tokenizer adds."""
        assert self.tokenizer is not None, "asked only where there is a tokenizer"
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if not is_own:
            return len(ids)
        bare, whole = (self.tokenizer.encode("a", add_special_tokens=s).ids for s in (False, True))
        return len(with_prefix(ids, added_prefix(bare, whole)))


def read_tokenizer(source: str) -> TokenizerFiles | None:
    """Return what the files of the recipe's `policy.path` say, None where they are not here."""
    if source.startswith("random:"):
        return TokenizerFiles(chat_template=CHARACTER_TEMPLATE, special_tokens=CHARACTER_TOKENS)
    try:
        here = Path(source).expanduser()
        path = here if (here / "tokenizer_config.json").is_file() else find_model(source)
        if path is None:
            return None
        return _of_gguf(path) if path.suffix == ".gguf" else _of_directory(path)
    except (KeyError, ValueError, TypeError, OSError):
        return None  # damaged, or written in another way: the run says so


def _of_directory(path: Path) -> TokenizerFiles | None:
    if not (path / "tokenizer_config.json").is_file():
        return None
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path / name).is_file():
            settings |= json.loads((path / name).read_text(encoding="utf-8"))
    tokens = {
        name: token["content"] if isinstance(token, dict) else token
        for name, token in settings.items()
        if name in SPECIAL and token is not None
    }
    file = path / "tokenizer.json"
    return TokenizerFiles(
        chat_template=_templates(path, settings.get("chat_template")),
        special_tokens=tokens,
        tokenizer=_tokenizer(file) if file.is_file() else None,
    )


def _tokenizer(file: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001 (the library raises plain Exception for a damaged file)
        return None


def _templates(path: Path, written: Any) -> str | dict[str, str] | None:  # noqa: ANN401 (JSON)
    """Return the templates as transformers finds them: files win over tokenizer_config.json."""
    files = sorted((path / "additional_chat_templates").glob("*.jinja"))
    named = {file.stem: file.read_text(encoding="utf-8") for file in files}
    default = path / "chat_template.jinja"
    if default.is_file():
        named["default"] = default.read_text(encoding="utf-8")
    if not named and isinstance(written, list):
        named = {entry["name"]: entry["template"] for entry in written}
    return named or (written if isinstance(written, str) else None)


def _of_gguf(path: Path) -> TokenizerFiles | None:
    values = read_gguf_header(path).values
    template = values.get("tokenizer.chat_template")
    indices = {
        name: int(values[key])
        for name in ("bos_token", "eos_token")
        if (key := f"tokenizer.ggml.{name}_id") in values
    }
    tokens = read_gguf_strings(path, "tokenizer.ggml.tokens", [*indices.values()])
    return TokenizerFiles(
        chat_template=str(template) if template else None,
        special_tokens=dict(zip(indices, tokens, strict=True)),
    )
