"""The pages keep their word: commands can be typed, options exist, values are those there are, links lead somewhere."""

import re
import shlex
import typing
from pathlib import Path
from typing import Any

import pytest
import typer.main

from avvp_pipe.cli.main import app
from avvp_pipe.stages import extract
from avvp_pipe.store.status import CODES

ROOT = Path(__file__).parents[1]
FILES = (
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
OF_OTHER_PROGRAMS = {"--no-deps", "--object-store-memory"}
"""Of pip and of Ray."""
OF_EVERY_COMMAND = {"--help"}
PROGRAM: Any = typer.main.get_command(app)


def blocks(text: str) -> list[str]:
    """What stands between fences."""
    return re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)


def inline(text: str) -> list[str]:
    """What stands between backticks, on one line."""
    without = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [" ".join(one.split()) for one in re.findall(r"`([^`]+)`", without)]


def commands(text: str) -> list[str]:
    """Command lines of this program: in blocks and sentences, there also without the program's name."""
    lines = [line for block in blocks(text) for line in block.splitlines()]
    typed = [found[1] for line in lines if (found := re.match(r"(?:\$ )?(?:\w+=\S+ )*avvp-pipe (.+)", line))]
    said = [re.sub(r"^(?:\w+=\S+ )*avvp-pipe ", "", one) for one in inline(text)]
    return typed + [one for one in said if one.split()[0] in PROGRAM.commands and len(one.split()) > 1]


SAID = [(page, line) for page, text in PAGES.items() for line in commands(text)]


@pytest.mark.parametrize(("page", "line"), SAID)
def test_every_command_line_on_a_page_can_be_typed(page: str, line: str) -> None:
    told, _, _ = line.partition(" > ")  # the rest is the shell's
    words = [word for word in shlex.split(told, comments=True) if word != "…"]
    command, name = PROGRAM, ""
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"{page}: there is no command {name}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in known] == []
    if words and not {"…", "S"} & {*line.split()}:  # told in full, without a place for a number: every value must do
        command.make_context(name, words)


PYTHON = [(page, block) for page in PAGES for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.S)]


@pytest.mark.parametrize(("page", "block"), [one for one in PYTHON if one[0] != "README.md"])
def test_python_on_a_page_runs(
    page: str, block: str, finished_demo: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the demo's artifacts, which are called otherwise than LLP's. (README's is held to more in test_readme.py.)"""
    monkeypatch.chdir(finished_demo.out)
    exec(block.replace("/llp-", "/"), {})
    assert capsys.readouterr().out.strip(), page


def test_every_option_in_a_sentence_exists() -> None:
    every = [one for command in every_command(PROGRAM) for one in command.params]
    known = {option for one in every for option in (*one.opts, *one.secondary_opts)}
    for page, text in PAGES.items():
        said = {word.partition("=")[0] for one in inline(text) if one.startswith("--") for word in one.split()}
        options = {word for word in said if word.startswith("--")}
        assert options - known - OF_OTHER_PROGRAMS - OF_EVERY_COMMAND == set(), page


def every_command(command: Any) -> list[Any]:
    inner = [found for one in getattr(command, "commands", {}).values() for found in every_command(one)]
    return [command, *inner]


def test_the_table_of_what_is_taken_from_a_video_holds_every_value_there_is() -> None:
    table = PAGES["docs/extraction.md"].partition("## What is taken from a video")[2].partition("\n## ")[0]
    told: dict[str, set[str]] = {}
    name = ""
    for option, values in re.findall(r"^\| (?:`--([a-z-]+)`)? *\| ([^|]+) \|", table, re.M):
        name = option or name
        told.setdefault(name.replace("-", "_"), set()).update(re.findall(r"`([^`]+)`", values))
    hints = typing.get_type_hints(extract.Params)
    assert set(extract.SAMPLING_DEFAULTS) <= set(told) <= set(hints)
    for name, values in told.items():
        choices = {value for one in (hints[name], *typing.get_args(hints[name])) for value in typing.get_args(one)}
        literals = {value for value in choices if isinstance(value, str)}
        assert values == literals, f"--{name}"


def test_every_code_of_a_failed_clip_is_explained_and_no_other() -> None:
    told = set(re.findall(r"^\| [^|]+ \| `([a-z-]+)` \|", PAGES["docs/files.md"], re.M))
    assert told == CODES - {"pending", "ok"}


def leaves(command: Any, *names: str) -> dict[str, Any]:
    """Whatever can be typed, by its words: `ls`, `labels release` …"""
    inner = getattr(command, "commands", None)
    if inner is None:
        return {" ".join(names): command}
    return {name: found for word, one in inner.items() for name, found in leaves(one, *names, word).items()}


def rows_of_commands() -> dict[str, dict[str, tuple[str, str]]]:
    """Heading -> command -> what the page says it does, and its example."""
    _, *sections = re.split(r"^## ", PAGES["docs/commands.md"], flags=re.M)
    row = re.compile(r"^\| \[`([a-z -]+)`\]\(\S+\) \| (.+?) \| `(.+?)` \|$", re.M)
    return {
        text.partition("\n")[0]: {name: (what, line) for name, what, line in row.findall(text)} for text in sections
    }


def test_the_page_of_commands_has_every_command_once_and_in_its_group() -> None:
    told = [(group, name) for group, rows in rows_of_commands().items() for name in rows]
    groups = {name: PROGRAM.commands[name.split()[0]].rich_help_panel for name in leaves(PROGRAM)}
    assert len(groups) > 40
    assert sorted(told) == sorted((group, name) for name, group in groups.items())
    tables = re.findall(r"^\| \[", PAGES["docs/commands.md"], re.M)
    assert len(tables) == len(told), "a row that is not read"


@pytest.mark.parametrize("name", leaves(PROGRAM))
def test_the_page_of_commands_says_what_the_help_says_first_and_gives_one_of_its_examples(name: str) -> None:
    what, example = next(rows[name] for rows in rows_of_commands().values() if name in rows)
    text = leaves(PROGRAM)[name].help
    first, _, more = text.partition("\n")[0].partition(". ")
    assert what == (f"{first}." if more else first)
    assert example in re.findall(r"(avvp-pipe .+)$", text, re.M)


def test_every_question_ends_where_it_is_settled() -> None:
    _, *answers = re.split(r"^### ", PAGES["docs/faq.md"], flags=re.M)
    assert len(answers) > 25
    for answer in answers:
        assert re.search(r"\]\([^)\s]+\)", answer) or commands(answer), answer.partition("\n")[0]


def slug(heading: str) -> str:
    """What GitHub calls the place of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_between_pages_lead_to_a_file_and_a_heading() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("https://"):
                continue
            place, _, heading = target.partition("#")
            file = (ROOT / page).parent / place if place else ROOT / page
            assert file.is_file(), f"{page} -> {target}"
            if heading:
                titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
                assert heading in {slug(title) for title in titles}, f"{page} -> {target}"


def test_files_that_a_page_names_are_there_and_every_page_is_linked() -> None:
    for page, text in PAGES.items():
        named = [one for one in inline(text) if re.fullmatch(r"(?:cli|pipeline|stages|store|tests)/[\w./-]+\.py", one)]
        assert [one for one in named if not (ROOT / one).is_file()] == [], page
    linked = {target for target in re.findall(r"\]\(([^)#\s]+)", PAGES["README.md"])}
    assert {page for page in PAGES if page.startswith("docs/")} <= linked
