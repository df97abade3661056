"""`doctor`: what is missing, and the command that mends it."""

import json
from pathlib import Path
from typing import Any

import pytest

from avvp_pipe.pipeline import doctor as doctor_module
from avvp_pipe.pipeline.doctor import examine, family_problem
from avvp_pipe.stages.teachers import hub
from tests.conftest import run_command


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that never fetched anything, and imports that are quick."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(doctor_module, "IMPORTS", {"json": ("import json", "")})
    monkeypatch.setattr(doctor_module, "SHOW_CUDA", "print('')")


def test_the_packages_of_this_installation_are_all_in_order() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor_module, "SHOW_CUDA", "print('Some GPU')")
        checks = {one.name: one for one in examine()}
    for name in ("torch", "open_clip", "decord", "PyAV", "laion_clap", "transformers"):
        assert checks[f"import {name}"].ok, checks[f"import {name}"].found
    assert checks["python"].ok
    assert checks["torch family"].ok
    assert checks["CUDA"].found == "Some GPU"


def test_missing_weights_are_named_with_the_command_and_the_exit_code_says_so(no_weights: None) -> None:
    ran = run_command("doctor", "--json")
    checks = {one["name"]: one for one in ran.document["checks"]}
    for name in ("ViT-L-14-quickgelu", "HTSAT-tiny-fused"):
        assert checks[f"weights {name}"]["state"] == "missing"
        assert checks[f"weights {name}"]["mend"] == f"avvp-pipe models fetch {name}"
    assert (ran.code, ran.document["ok"]) == (1, False)
    shown = run_command("doctor")
    assert "mend: avvp-pipe models fetch ViT-L-14-quickgelu" in shown.out


def test_where_nothing_is_missing_it_ends_with_nought(no_weights: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "_teachers", lambda: iter(()))
    ran = run_command("doctor", "--json")
    assert (ran.code, ran.document["ok"]) == (0, True)
    assert {one["state"] for one in ran.document["checks"]} <= {"ok", "note"}


def test_an_import_that_fails_crashes_or_hangs_is_told_with_what_mends_it(
    no_weights: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = {
        "absent": ("import no_such_package", "pip install it"),
        "crashing": ("import os; os._exit(7)", "pip install that"),
        "hanging": ("import time; time.sleep(60)", "wait"),
        "sound": ("import json; print(1)", ""),
    }
    monkeypatch.setattr(doctor_module, "IMPORTS", tried)
    monkeypatch.setattr(doctor_module, "PATIENCE_SECONDS", 3)
    checks = {one.name: one for one in examine()}
    assert "No module named 'no_such_package'" in checks["import absent"].found
    assert checks["import crashing"].found == "the process ended with 7"
    assert checks["import hanging"].found == "took more than 3 s"
    assert all(checks[f"import {name}"].state == "missing" for name in ("absent", "crashing", "hanging"))
    assert checks["import sound"].ok
    assert checks["import absent"].mend == "pip install it"


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        (("2.11.0", "0.26.0", "2.11.0"), ""),
        (("2.11.0+cpu", "0.26.0+cpu", "2.11.0"), ""),
        (("2.12.1", "0.26.0", "2.11.0"), "torch 2.12 wants torchvision 0.27 and torchaudio 2.12"),
        (("2.11.0", "0.26.0", "2.10.0"), "torch 2.11 wants torchvision 0.26 and torchaudio 2.11"),
        (("2.11.0+cpu", "0.26.0+cu128", "2.11.0"), "their builds differ: cpu, cu128"),
    ],
)
def test_torch_torchvision_and_torchaudio_must_be_of_one_family(versions: tuple[str, str, str], problem: str) -> None:
    assert family_problem(*versions) == problem


def test_a_cache_that_cannot_be_written_to_is_told(
    no_weights: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVVP_PIPE_CACHE", str(tmp_path / "file" / "cache"))
    checks = {one.name: one for one in examine()}
    assert checks["cache folder"].state == "missing"
    assert checks["cache folder"].mend == "name another in AVVP_PIPE_CACHE"
    assert checks["weights cache folder"].ok


def test_a_machine_told_to_stay_offline_is_noted_and_is_no_error(
    no_weights: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.is_offline()
    note: dict[str, Any] = {one.name: one for one in examine()}
    assert note["HF_HUB_OFFLINE"].state == "note"
    assert "unset it" in note["HF_HUB_OFFLINE"].mend


def test_its_json_is_one_document_and_the_help_names_an_example(no_weights: None) -> None:
    assert set(json.loads(run_command("doctor", "--json").out)) == {"ok", "checks"}
    assert "Example: avvp-pipe doctor" in " ".join(run_command("doctor", "--help").out.split())
