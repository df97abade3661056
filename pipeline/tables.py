"""Files of settings: TOML and YAML read into plain tables, tables into records, records into YAML.

YAML is read as its version 1.2 has it: `no` and `on` are text, `010` is ten, `1e-3` is a number, `1:30` and
`2026-01-01` are text. A key that comes twice is an error, and so are anchors: a file says what it says, once.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from avvp_pipe.stages.stage import ParameterError, hint

__all__ = ["ENDINGS", "FILE_LIMIT_BYTES", "dumped", "hint", "read_table", "record", "table_of"]

Record = TypeVar("Record")
ENDINGS = (".toml", ".yaml", ".yml")
FILE_LIMIT_BYTES = 2**20
SCALARS: tuple[tuple[str, str, str], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
"""Plain words of YAML 1.2 that are no text: what they are, their form, and what they begin with (\\0: nothing)."""


def read_table(path: Path, *, what: str) -> dict[str, Any]:
    """The table in a file. what: what the file should be, for messages.

    Raises ParameterError where there is none, where it is too large, and naming what is wrong in it.
    """
    if path.suffix not in ENDINGS:
        raise ParameterError(f"{path} is no {what} by its name; wanted a name that ends in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise ParameterError(f"{path} is not a file; wanted a {what}")
    size = path.stat().st_size
    if size > FILE_LIMIT_BYTES:
        raise ParameterError(f"{path} has {size} bytes; a {what} of over {FILE_LIMIT_BYTES} is none")
    return table_of(path.read_bytes(), path.suffix, str(path))


def table_of(data: bytes, ending: str, where: str) -> dict[str, Any]:
    """The table in the bytes of a file with this ending. Raises ParameterError saying where it stops being one."""
    kind = "TOML" if ending == ".toml" else "YAML"
    try:
        text = data.decode("utf-8-sig")
        found = tomllib.loads(text) if kind == "TOML" else _yaml(text)
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{where} is not {kind} ({error})") from None
    if not isinstance(found, dict):
        raise ParameterError(f"{where} holds {_said(found)}; wanted keys with values, such as `steps:`")
    return found


def _said(found: Any) -> str:
    return "nothing" if found is None else "a list" if isinstance(found, list) else f"only {str(found)[:40]!r}"


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_yaml_kinds()[0])
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def dumped(document: Mapping[str, Any]) -> str:
    """Plain values as YAML that `read_table` reads back."""
    import yaml

    return str(yaml.dump(document, Dumper=_yaml_kinds()[1], sort_keys=False, allow_unicode=True, width=100))


@cache
def _yaml_kinds() -> tuple[Any, Any]:
    """A loader and a dumper that agree on which words are no text."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        """YAML 1.2, every key once, no anchors."""

        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                line = event.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: anchors (& and *) are not read; write `defaults` instead")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[Any] = set()
            for key, _ in node.value:
                name, line = self.construct_object(key, deep=True), key.start_mark.line + 1
                if not isinstance(name, str):
                    raise yaml.YAMLError(f"line {line}: the key {name!r} is no text; put it into quotes")
                if name in seen:
                    raise yaml.YAMLError(f"line {line}: the key {name!r} comes twice")
                seen.add(name)
            return dict(super().construct_mapping(node, deep=deep))

        def construct_yaml_int(self, node: Any) -> int:
            return int(self.construct_scalar(node))

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Quotes what the loader would not take for text."""

        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, data: str) -> Any:
        style = None if data.isprintable() else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    Loader.add_constructor("tag:yaml.org,2002:float", lambda self, node: _float(self.construct_scalar(node)))
    for kind in (Loader, Dumper):
        for name, form, first in SCALARS:
            letters = ["" if letter == "\0" else letter for letter in first]
            kind.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(rf"^(?:{form})$"), letters)
    return Loader, Dumper


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def record(kind: type[Record], table: Mapping[str, Any], where: str) -> Record:
    """A record from plain values. Raises ParameterError for unknown keys and for values of other types."""
    from pydantic import TypeAdapter, ValidationError

    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise ParameterError(f"{where}: unknown key {key!r}{hint(key, known)}")
    try:
        return TypeAdapter(kind).validate_python(dict(table))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'record'}: {one['msg']}" for one in error.errors())
        raise ParameterError(f"{where}: {problems}") from None
