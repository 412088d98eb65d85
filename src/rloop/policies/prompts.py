"""A problem's prompt as text, from the model's chat template or the recipe's own template.

Chat templates are rendered exactly as by transformers' `apply_chat_template`, without importing it,
so that `rloop check` shows what a run will use. This module knows no token ids.
"""

import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from functools import lru_cache
from typing import Any, Literal

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rloop.errors import ConfigError, EngineError
from rloop.recipe.config import PromptConfig, Recipe
from rloop.text import visible
from rloop.types import Problem

PROBE = "How many primes are there below 20?"
"""Stands for a problem when a template is tried."""
SYSTEM_PROBE = " Think before you answer."
"""Follows the system text when a template is tried, because a one-letter text could appear
anywhere."""
REPLY = "There are eight of them."
"""Stands for a completion when a template is tried."""
SHOWN_LINES, SHOWN_CHARACTERS = 12, 900
"""Limit of a prompt that is shown; beyond it the middle is left out."""
RENDER_ERRORS = (
    *(TemplateError, ArithmeticError, AttributeError, LookupError),
    *(RecursionError, TypeError, ValueError),
)
"""Errors that a template, which is a program, may raise."""

Content = Literal["text", "parts"]
"""A message's content as text, or as the list of parts that vision models' templates read."""
Section = Literal["explore", "evaluate"]
FORMS: tuple[tuple[Content, Content], ...] = (
    *(("text", "text"), ("text", "parts")),
    *(("parts", "parts"), ("parts", "text")),
)
"""Forms of the system and the user message, in the order in which they are tried."""
CHARACTER_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'A:' + message['content'] + eos_token + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Q:' + message['content'] + '\n' }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)
"""Chat template of `random:` models."""
CHARACTER_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>"}
Messages = list[dict[str, Any]]


class PromptText:
    """Writes prompts for one chat template and one recipe."""

    def __init__(
        self,
        config: PromptConfig,
        *,
        chat_template: str | Mapping[str, str] | None,
        special_tokens: Mapping[str, Any],
    ) -> None:
        """Check that there is a template, and that it keeps the texts it is given.

        `chat_template` and `special_tokens` (`{"bos_token": "<s>"}`) are the tokenizer's.
        Raises EngineError with what is wrong with a template.
        """
        self._config = config
        self._special_tokens = dict(special_tokens)
        self._template: Template | None = None
        self._form = FORMS[0]
        if config.template is not None:
            source = config.template
        else:
            source = choose_template(chat_template)
            self._template = _compiled(source)
            self._form = self._choose_form()
        self.version = _version(config, source)

    def text(self, problem: Problem) -> str:
        """Return the problem's prompt; EngineError if the template leaves its text out."""
        content = problem.question + self._config.suffix
        if self._template is None:
            # Not str.format: problems are full of braces.
            values = {"{system}": self._config.system or "", "{problem}": content}
            own = self._config.template or ""
            return re.sub(r"\{system\}|\{problem\}", lambda found: values[found[0]], own)
        text = self._render(self.messages(problem))
        # A template may remove flags from the system text, as SmolLM3's does with /no_think.
        if not holds(text, content):
            raise EngineError(
                f"The chat template leaves the text of {problem.problem_id} out of its prompt, "
                f"{_shorten(text)}. Write the prompt in prompt.template, with {{problem}} in it."
            )
        return text

    def messages(self, problem: Problem) -> Messages:
        """Return the conversation that the model's chat template renders."""
        return self._conversation(problem.question + self._config.suffix, self._form)

    def warnings(self) -> list[str]:
        """Return a warning for each entry of `prompt.template_args` that changes nothing."""
        arguments = self._config.template_args
        if self._template is None or not arguments:
            return []
        probe = self._conversation(PROBE + self._config.suffix, self._form)
        text = self._render(probe)
        return [
            f"prompt.template_args.{name}={json.dumps(value)} changes nothing: the chat template "
            "gives the same prompt without it."
            for name, value in arguments.items()
            if self._try(probe, without=name) == text
        ]

    def after_reply(self) -> str | None:
        """Return what the chat template writes after an assistant message; None if that cannot be
        determined, and for a recipe's own template.
        """
        if self._template is None:
            return None
        _, content = self._form
        messages = [
            _message("user", PROBE, content),
            _message("assistant", REPLY, content),
        ]
        text = self._try(messages, add_generation_prompt=False) or ""
        _, reply, tail = text.rpartition(REPLY)
        return tail if reply else None

    def user_turn(self) -> str:
        """Return a user message as the chat template writes it; empty if it refuses."""
        messages = [_message("user", PROBE, self._form[1])]
        return (self._template and self._try(messages, add_generation_prompt=False)) or ""

    def _conversation(
        self, content: str, form: tuple[Content, Content], *, more: str = ""
    ) -> Messages:
        """Return the messages; `more` follows the system text, if there is one."""
        messages = [_message("user", content, form[1])]
        if self._config.system is not None:
            messages.insert(0, _message("system", self._config.system + more, form[0]))
        return messages

    def _choose_form(self) -> tuple[Content, Content]:
        """Return the first form in which the template keeps problem and system text."""
        content, has_system = PROBE + self._config.suffix, self._config.system is not None
        reasons = []
        for form in FORMS if has_system else FORMS[:2]:
            try:
                text = self._render(self._conversation(content, form, more=SYSTEM_PROBE))
            except EngineError as error:
                reasons.append(str(error))
                continue
            if not holds(text, content) or _shows_parts(text):
                lost = "the problem"
            elif has_system and not holds(text, SYSTEM_PROBE):
                lost = "prompt.system"
            else:
                return form
            reasons.append(f"The chat template leaves {lost} out of the prompt {_shorten(text)}.")
        # The first reason is that of plain text, the form most templates expect.
        if has_system and self._takes_the_problem_alone(content):
            raise EngineError(
                f"prompt.system cannot be used with this model. {reasons[0]} Put that text "
                "into prompt.suffix, or write the whole prompt in prompt.template with {system} "
                "and {problem} in it."
            )
        raise EngineError(
            f"{reasons[0]} Fix the model's chat template, or write the prompt in prompt.template "
            "with {problem} in it."
        )

    def _takes_the_problem_alone(self, content: str) -> bool:
        found = (self._try([_message("user", content, form)]) for form in ("text", "parts"))
        return any(text is not None and holds(text, content) for text in found)

    def _try(self, messages: Messages, *, without: str | None = None, **options: Any) -> str | None:  # noqa: ANN401 (template variables)
        try:
            return self._render(messages, without=without, **options)
        except EngineError:
            return None

    def _render(self, messages: Messages, *, without: str | None = None, **options: Any) -> str:  # noqa: ANN401 (template variables)
        assert self._template is not None, "only a chat template is rendered"
        arguments = {k: v for k, v in self._config.template_args.items() if k != without}
        variables = {
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
            "strftime_now": _clock(self._config.date),
            **self._special_tokens,
            **arguments,
            **options,
        }
        try:
            return self._template.render(messages=messages, **variables)
        except RENDER_ERRORS as error:
            raise EngineError(f"The chat template says: {_first_line(error)}.") from error


def choose_template(found: str | Mapping[str, str] | None) -> str:
    """Return a tokenizer's chat template: its only one, or of several that named `default`."""
    if not found:
        raise EngineError(
            "The model has no chat template. Give the recipe its own, such as "
            "prompt.template: 'Question: {problem}\\nAnswer:'."
        )
    if isinstance(found, str):
        return found
    if len(found) > 1 and "default" not in found:
        raise EngineError(
            f"The model has {len(found)} chat templates ({', '.join(sorted(found))}) and none is "
            f"named default. Put the one you want into its chat_template.jinja, or write the "
            f"prompt "
            "in prompt.template with {problem} in it."
        )
    return found.get("default") or next(iter(found.values()))


def holds(prompt: str, content: str) -> bool:
    """Whether the prompt contains the text, whatever the template did to spaces, case or
    escapes."""
    wanted = content.strip()
    if wanted in prompt:
        return True
    escaped = (json.dumps(wanted, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    texts = {_flat(wanted), *map(_flat, escaped)}
    return any(text in _flat(kind) for text in texts for kind in (prompt, html.unescape(prompt)))


def shown(prompt: str) -> str:
    """Return a prompt for people: control characters visible, lines indented, a long middle left
    out."""
    text = visible(prompt)
    if len(text) > SHOWN_CHARACTERS:
        half = SHOWN_CHARACTERS // 2
        left_out = f"[{len(text) - 2 * half:,} characters left out]"
        text = f"{text[:half]} ... {left_out} ... {text[-half:]}"
    lines = text.split("\n")
    if len(lines) > SHOWN_LINES:
        half = SHOWN_LINES // 2
        left_out = f"... [{len(lines) - 2 * half} lines left out] ..."
        lines = [*lines[:half], left_out, *lines[-half:]]
    return "\n".join(f"  | {line}" for line in lines)


def added_prefix(bare: Sequence[int], whole: Sequence[int]) -> tuple[int, ...]:
    """Return the ids that a tokenizer itself puts before a text, such as BOS.

    `bare` are the ids of a text without special tokens, `whole` those with them. Ids added after
    the text, such as EOS, do not belong to a prompt.
    """
    for begin in range(len(whole) - len(bare) + 1):
        if list(whole[begin : begin + len(bare)]) == list(bare):
            return tuple(whole[:begin])
    return ()


def with_prefix(ids: Sequence[int], prefix: Sequence[int]) -> tuple[int, ...]:
    """Return the ids with the prefix before them exactly once: a template may have written it
    already."""
    has_it = tuple(ids[: len(prefix)]) == tuple(prefix)
    return tuple(ids) if has_it else (*prefix, *ids)


def completion_limit(recipe: Recipe, section: Section) -> int:
    """Return the most tokens of a completion in exploration or in an evaluation."""
    config = recipe.explore if section == "explore" else recipe.evaluate
    return config.sampling.max_completion_tokens


def check_context(
    recipe: Recipe,
    section: Section,
    problem_id: str,
    prompt_tokens: int,
    context: int,
) -> None:
    """Raise ConfigError if a prompt and a completion together exceed the model's context."""
    completion = completion_limit(recipe, section)
    if prompt_tokens + completion <= context:
        return
    key = f"{section}.sampling.max_completion_tokens"
    rest = context - prompt_tokens
    lower = f"Lower {key} to {rest}, or " if rest > 0 else "Lower "
    fits = max(1, context - completion)
    raise ConfigError(
        f"The prompt of {problem_id} has {prompt_tokens} tokens, and with {key}={completion} that "
        f"is {prompt_tokens + completion}, more than the {context} of the policy's context "
        f"(max_position_embeddings). {lower}prompt.max_tokens to {fits}, or take a model with a "
        "longer context."
    )


def today() -> str:
    """Return today's date, which a new run keeps, as `2026-11-30`."""
    return date.today().isoformat()


def _version(config: PromptConfig, source: str) -> str:
    """Return a hash of everything that shapes a prompt besides the problem."""
    parts = [source, config.system or "", config.suffix]
    if config.template is None:
        if config.template_args:
            parts.append(json.dumps(config.template_args, sort_keys=True))
        if "strftime_now" in source:
            parts.append(config.date or today())
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=6).hexdigest()


def _message(role: str, content: str, form: Content) -> dict[str, Any]:
    parts = [{"type": "text", "text": content}]
    return {"role": role, "content": content if form == "text" else parts}


def _clock(day: str | None) -> Callable[[str], str]:
    """Return `strftime_now` for chat templates; with a day given, always of that day."""

    def strftime_now(form: str) -> str:
        pinned = datetime.combine(date.fromisoformat(day), time()) if day else datetime.now()
        return pinned.strftime(form)

    return strftime_now


class _Generation(Extension):
    """`{% generation %}`, which marks what an assistant wrote: it renders what is inside."""

    tags = {"generation"}  # noqa: RUF012 (jinja's own class attribute)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the statements inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    """Return the template in the environment that transformers gives it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise EngineError(
            f"The model's chat template has a syntax error in line {error.lineno}: "
            f"{_first_line(error)}. Fix its chat_template.jinja (or tokenizer_config.json), or "
            "write the prompt in prompt.template with {problem} in it."
        ) from error
    except RENDER_ERRORS as error:
        raise EngineError(
            f"The model's chat template cannot be read: {_first_line(error)}. Write the prompt in "
            "prompt.template with {problem} in it."
        ) from error


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: ANN401, FBT001, FBT002 (transformers' filter)
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _shows_parts(text: str) -> bool:
    """Whether a template printed a list of parts literally, because it only knows text."""
    return "'type':'text'" in _flat(text).replace('"', "'")


def _shorten(text: str) -> str:
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return repr(text)


def _flat(text: str) -> str:
    return "".join(text.split()).casefold()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".: ")
