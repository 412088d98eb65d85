"""Groups of commands, with help that reads like prose and the nearest name for another tool's."""

from typing import Any

from typer.core import TyperGroup

NEAREST = {"train": "run", "init": "new", "evaluate": "eval", "diff": "compare", "show": "view"}
"""Commands of other tools, and the nearest here."""


class Group(TyperGroup):
    """Joins the lines of a command's help, so that a narrow terminal does not break them twice."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 (click's types)
        """Return the command; a usage error where there is none."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not isinstance(command, TyperGroup):
            paragraphs = (command.help or "").split("\n\n")
            command.help = "\n\n".join(" ".join(text.split("\n")) for text in paragraphs)
        return name, command, rest


class Commands(Group):
    """Answers other tools' names of commands with the nearest here."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 (click's types)
        """Return the command; a usage error where there is none."""
        if args[0] in NEAREST:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{NEAREST[args[0]]}'?")
        return super().resolve_command(ctx, args)
