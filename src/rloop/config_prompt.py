"""The part of a recipe that says how a problem becomes a prompt."""

from typing import Any

from pydantic import field_validator

from rloop.config_fields import Count, Date, Strict


class PromptConfig(Strict):
    """How a problem becomes a prompt."""

    system: str | None = None
    """System text; put before the problem by the chat template, or by `{system}` in `template`."""
    template: str | None = None
    """A template with `{problem}` used instead of the model's chat template."""
    suffix: str = ""
    """Text after the problem, such as `Put the final answer in \\boxed{}.`"""
    template_args: dict[str, Any] = {}
    """Arguments of the model's chat template, such as `enable_thinking: false`."""
    date: Date | None = None
    """The day that a chat template sees which writes today's date, such as `2026-11-30`; when
    absent the day on which the run begins, and then kept for all of it."""
    max_tokens: Count = 1024
    """Longer prompts are left out and counted (tokens)."""

    @field_validator("template_args")
    @classmethod
    def _check_template_args(cls, values: dict[str, Any]) -> dict[str, Any]:
        taken = sorted({"messages", "add_generation_prompt"} & set(values))
        if taken:
            raise ValueError(f"{taken[0]} is what rloop itself hands to the template. Remove it.")
        odd = [name for name in values if not name.isidentifier()]
        if odd:
            raise ValueError(f"{odd[0]!r} is not a name that a template can read. Correct it.")
        return values
