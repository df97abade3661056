"""The repository's own promises: every package is listed, every docstring example runs, arrows point one way."""

import ast
import doctest
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("pipeline", "stages", "store", "cli")
FILES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAY_IMPORT = {"store": {"store"}, "stages": {"stages", "store"}, "pipeline": {"pipeline", "stages", "store"}}
STAGE_MODULES = {
    path.stem for path in FILES if path.parent == Path("stages") and "\nSTAGE = Stage(" in (ROOT / path).read_text()
}


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(("avvp_pipe", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imported_modules(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("avvp_pipe.")}


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({module_name(path) for path in FILES if path.name == "__init__.py"})


@pytest.mark.parametrize("name", [module_name(path) for path in FILES])
def test_docstring_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] in MAY_IMPORT], ids=str)
def test_imports_point_from_cli_to_pipeline_to_stages_to_store(path: Path) -> None:
    folders = {name.split(".")[1] for name in imported_modules(path)}
    assert folders <= MAY_IMPORT[path.parts[0]]


@pytest.mark.parametrize("name", sorted(STAGE_MODULES))
def test_no_stage_imports_another_stage(name: str) -> None:
    others = {f"avvp_pipe.stages.{other}" for other in STAGE_MODULES - {name}}
    assert not imported_modules(Path("stages") / f"{name}.py") & others


def test_the_command_line_starts_without_torch_zarr_and_the_rest() -> None:
    heavy = ("torch", "zarr", "open_clip", "transformers", "av", "decord", "laion_clap")
    code = f"import sys, avvp_pipe.cli.main; assert not {{*{heavy}}} & set(sys.modules), set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_and_functions_stay_short() -> None:
    long_files = [str(path) for path in FILES if len((ROOT / path).read_text().splitlines()) > 300]
    assert long_files == []


def test_nothing_is_unpickled() -> None:
    forbidden = ("pickle" + ".load", "weights_only=" + "False", "allow_pickle=" + "True")
    found = [str(path) for path in FILES for text in forbidden if text in (ROOT / path).read_text()]
    assert found == []
