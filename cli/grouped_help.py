"""Help of commands with many options: one section for each group of options, in the order of the signature."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

__all__ = ["GroupedCommand", "GroupedCommands", "examples"]

OTHERS = "Output"
"""Where options without a panel stand: `--help`."""


class GroupedCommand(TyperCommand):
    """A command whose help shows options under the title that they were given as `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section a panel."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or OTHERS, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class GroupedCommands(TyperGroup):
    """A program whose help lists commands under the title that they were given as `rich_help_panel`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section a panel."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            told = command.get_short_help_str(formatter.width - 25)
            sections.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append((name, told))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def examples(lines: str) -> str:
    r"""The last paragraph of a help text: command lines as they are, each below what it is for.

    >>> print(examples("avvp-pipe ls").replace("\b", "|"))
    |
    Example: avvp-pipe ls
    >>> print(examples("look\navvp-pipe ls\nand tell\navvp-pipe show x").replace("\b", "|"))
    |
    Examples:
      # look
      avvp-pipe ls
      # and tell
      avvp-pipe show x
    """
    if "\n" not in lines:
        return f"\b\nExample: {lines}"
    told = (line if line.startswith("avvp-pipe ") else f"# {line}" for line in lines.splitlines())
    return "\n  ".join(["\b\nExamples:", *told])
