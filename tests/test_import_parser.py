"""Released parsers come in safely, give the released outputs, and what is none is refused by name."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks.stored import load_network
from avvp_pipe.stages.parsers import parser_method
from avvp_pipe.stages.parsers.han import Han, Network
from avvp_pipe.stages.parsers.released import imported_parser
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Artifact, Store, StoreError
from avvp_pipe.store.verify import verify
from tests.checkpoint_files import Harmful, saved
from tests.released_shapes import Shapes, State, random_state, uwav_shapes, valor_shapes
from tests.trees import CLASSES, Told, make_dataset

RELEASED: dict[str, tuple[Shapes, int]] = {
    "valor": (valor_shapes(width=512, ffn=1024, layers=1, audio=128, visual=2048), 5_096_523),
    "valor+": (valor_shapes(width=256, ffn=1024, layers=4, audio=128, visual=2048), 5_052_235),
    "valor++": (valor_shapes(width=256, ffn=1024, layers=4, audio=768, visual=768), 4_888_395),
    "uwav": (uwav_shapes(width=512, ffn=2048, layers=5, audio=128, both=2560), 23_023_691),
}
SMALL = uwav_shapes(width=8, ffn=12, layers=2, audio=5, both=10, classes=len(CLASSES))
SMALL_VALOR = valor_shapes(width=8, ffn=12, layers=2, audio=5, visual=6, motion=4, classes=len(CLASSES))


@pytest.fixture
def state() -> State:
    return random_state(SMALL)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_dataset(tmp_path / "world", {"a": 4, "b": 4})


def import_it(store: Store, file: Path, told: Told | None = None, **params: Any) -> Artifact:
    values = {"heads": "2", "motion_width": 4, "source": str(file), **params}
    step = Step("import-parser", "theirs", values, {"dataset": "dataset/clips"})
    return run_step(store, step, progress=told or Told()).artifact


def parsers(store: Store) -> list[str]:
    return [str(one.reference) for one in store.artifacts() if one.kind == "parser"]


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_file_says_which_parser_it_is_and_how_large(name: str) -> None:
    shapes, parameters = RELEASED[name]
    found = imported_parser({one: torch.zeros(shape) for one, shape in shapes.items()})
    assert (found.name, found.network) == (name, parser_method(name).network)
    assert sum(one.numel() for one in found.weights.values()) == parameters


@pytest.mark.real_data
@pytest.mark.parametrize("file", ["uwav_han", "valor_han", "valor_plusplus_han"])
def test_an_imported_checkpoint_gives_the_outputs_of_the_released_module(
    real_data: Path, tmp_path: Path, file: str
) -> None:
    # Made with UWAV's code at 15c9a8d and VALOR's at 2677da9, eval mode, torch 2.11 on CPU.
    with np.load(real_data / "golden" / f"{file}.npz") as stored:
        golden = {name: torch.from_numpy(stored[name]) for name in stored.files}
    weights = {name.removeprefix("weights/"): golden[name] for name in golden if name.startswith("weights/")}
    classes = tuple(f"class {number}" for number in range(len(weights["fc_prob.weight"])))
    store = make_dataset(tmp_path / "golden", {"a": 10, "b": 10}, classes=classes)
    motion = golden["visual_3d"].shape[2]
    made = import_it(store, saved(tmp_path, weights), heads=int(golden["heads"]), motion_width=motion)
    model = load_network(made, Network, Han)
    heard = model.network.audio_stream
    assert (heard == "audio_map") == (file == "valor_plusplus_han") == (made.attrs["parser"] == "valor++")
    with torch.inference_mode():
        found = model({heard: golden["audio"], "visual": golden["visual_2d"], "motion": golden["visual_3d"]})
    for name in ("video_probs", "audio_video_probs", "visual_video_probs"):
        assert golden[name].std() > 0.01
        torch.testing.assert_close(getattr(found, name), golden[name], rtol=0, atol=1e-5)


def test_what_parse_needs_is_stored_and_the_reader_is_told_what_the_file_does_not_say(
    tmp_path: Path, store: Store, state: State
) -> None:
    told = Told()
    made = import_it(store, saved(tmp_path, state), told)
    assert made.attrs["classes"] == list(CLASSES)
    assert (made.attrs["parser"], made.attrs["origin"], made.attrs["released"]) == ("uwav", "imported", "UWAV 15c9a8d")
    network = Network(**made.attrs["network"])
    assert network.widths() == {"audio": 5, "visual": 6, "motion": 4}
    assert (network.width, network.layers, network.heads, network.classes) == (8, 2, 2, len(CLASSES))
    assert made.attrs["gate"] == {"gate": "global", "gate_threshold": 0.5, "threshold": 0.5, "strict": True}
    assert (made.attrs["streams"], made.attrs["widths"]) == (list(network.widths()), network.widths())
    assert np.array_equal(made.array("weights/classifier.weight"), state["fc_prob.weight"].numpy())
    assert "reads audio (5), visual (6), motion (4)" in told.text
    assert "taken to be in the dataset's order" in told.text
    assert verify(made).findings == ()


def test_an_imported_parser_parses_features(tmp_path: Path, make_artifact: Callable[..., Artifact]) -> None:
    # VALOR++ at its released widths: CLAP's maps of whole clips, CLIP and motion; the second clip has 7 seconds.
    store = make_dataset(tmp_path / "world", {"a": 10, "b": 7})
    file = saved(tmp_path, random_state(valor_shapes(width=8, ffn=12, layers=2, audio=768, visual=768, classes=3)))
    parser, dataset = import_it(store, file), store.get("dataset/clips")
    rng = np.random.default_rng(0)
    streams = {
        name: rng.normal(size=(2, rows, width)).astype(np.float32)
        for name, (rows, width) in {"audio_map": (64, 768), "visual": (10, 768), "motion": (10, 512)}.items()
    }
    streams["visual"][1, 7:] = streams["motion"][1, 7:] = np.nan
    clips: dict[str, Any] = {name: dataset.strings(name) for name in ("video_ids", "splits")}
    clips |= {name: dataset.array(name) for name in ("weak", "lengths")} | {"status": np.ones(2, np.uint8)}
    make_artifact(store, "features/clips", arrays={**clips, **streams}, classes=list(CLASSES))
    inputs = {"parser": str(parser.reference), "features": "features/clips"}
    found = run_step(store, Step("parse", "clips", {"device": "cpu"}, inputs), progress=Told()).artifact
    model = load_network(parser, Network, Han)
    with torch.inference_mode():
        alone = model(
            {
                name: torch.from_numpy(array[1:, :7] if name != "audio_map" else array[1:])
                for name, array in streams.items()
            }
        )
    probabilities = found.array("audio_probs")
    np.testing.assert_allclose(probabilities[1, :7], alone.audio_logits.sigmoid()[0], atol=1e-6)
    assert probabilities[:, :7].min() > 0
    assert not probabilities[1, 7:].any()
    np.testing.assert_allclose(found.array("video_probs")[1], alone.video_probs[0], atol=1e-6)


def test_valors_file_is_taken_for_the_parser_that_is_named(tmp_path: Path, store: Store) -> None:
    file = saved(tmp_path, random_state(SMALL_VALOR))
    assert import_it(store, file).attrs["parser"] == "valor+"
    named = import_it(store, file, parser="valor++")
    assert (named.attrs["parser"], named.attrs["released"]) == ("valor++", "VALOR 2677da9")
    assert named.attrs["network"]["audio_stream"] == "audio_map"
    with pytest.raises(StoreError, match="a parser of VALOR's release, but uwav is wanted"):
        import_it(store, file, parser="uwav")


def test_heads_and_norms_that_the_file_does_not_hold_are_those_told(tmp_path: Path, store: Store, state: State) -> None:
    file = saved(tmp_path, state)
    made = import_it(store, file, heads=4, norm="pre")
    assert (made.attrs["network"]["heads"], made.attrs["network"]["norm"]) == (4, "pre")
    with pytest.raises(StoreError, match=r"16 heads do not divide the width 8.*--heads \(released: 16\)"):
        import_it(store, file, heads="auto")
    with pytest.raises(StoreError, match=r"10 wide together.*--motion-width"):
        import_it(store, file, motion_width=512)


@pytest.mark.parametrize("wrap", ["state_dict", "module.", "safetensors", "old format", "float64", "float16"])
def test_the_forms_in_which_people_keep_such_files_are_read_alike(
    tmp_path: Path, store: Store, state: State, wrap: str
) -> None:
    if wrap == "state_dict":
        file = saved(tmp_path, {"state_dict": state, "epoch": 79})
    elif wrap == "module.":
        file = saved(tmp_path, {f"module.{name}": one for name, one in state.items()})
    elif wrap == "safetensors":
        from safetensors.torch import save_file

        file = tmp_path / "best.safetensors"
        save_file(state, file)
    elif wrap == "old format":
        file = saved(tmp_path, state, _use_new_zipfile_serialization=False)
    else:
        file = saved(tmp_path, {name: one.to(getattr(torch, wrap)) for name, one in state.items()})
    told = Told()
    array = import_it(store, file, told).array("weights/encoder.layers.1.cm_attn.in_proj_weight")
    wanted = state["hat_encoder.layers.1.cm_attn.in_proj_weight"].numpy()
    np.testing.assert_allclose(array, wanted, atol=1e-4 if wrap == "float16" else 0)
    assert array.dtype == np.float32
    assert ("stored and run as float32" in told.text) == wrap.startswith("float")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old format"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, store: Store, state: State, new: bool) -> None:
    mark = tmp_path / "ran"
    file = saved(tmp_path, state | {"a": Harmful(mark)}, _use_new_zipfile_serialization=new)
    with pytest.raises(StoreError, match="cannot be read as tensors alone"):
        import_it(store, file)
    assert not mark.exists()
    assert parsers(store) == []


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "cannot be read as tens"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as tensors alone"),
    "text": (lambda path: path.write_text("epoch 1"), "cannot be read as tensors alone"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "cannot be read as tensors alone|holds 'a'"),
    "a list": (lambda path: torch.save([torch.zeros(1)], path), "holds a list"),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), "holds 'epoch', a int"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, store: Store, state: State, kind: str) -> None:
    spoil, message = FILES[kind]
    file = saved(tmp_path, state)
    spoil(file)
    with pytest.raises(StoreError, match=message) as refused:
        import_it(store, file)
    assert str(file) in str(refused.value)
    assert parsers(store) == []


def without(name: str) -> Callable[[State], State]:
    return lambda state: {other: one for other, one in state.items() if other != name}


def with_one(name: str, make: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: state | {name: make(state.get(name, torch.zeros(2)))}


def spoilt(value: float) -> Callable[[Tensor], Tensor]:
    def make(one: Tensor) -> Tensor:
        other = one.clone()
        other.view(-1)[0] = value
        return other

    return make


LINEAR1 = "hat_encoder.layers.1.linear1.weight"
STATES: dict[str, tuple[Callable[[State], State], str]] = {
    "a generator": (lambda state: {"a_transformer.encoder.x": torch.ones(4)}, "holds a label generator.*import-gener"),
    "another network": (lambda state: {"layers.0.weight": torch.ones(4, 4)}, "is no parser of VALOR's or UWAV's"),
    "a weight missing": (without(LINEAR1), r"encoder\.layers\.1\.linear1\.weight missing"),
    "the classifier missing": (without("fc_prob.weight"), "lacks fc_prob.weight"),
    "a whole part missing": (
        lambda state: {name: one for name, one in state.items() if "fc_av_att" not in name}, "fc_av_att.* missing"
    ),
    "a layer missing": (
        lambda state: {name.replace("hat_encoder.layers.0", "hat_encoder.layers.7"): one
                       for name, one in state.items()} | {"hat_encoder.layers.0.linear1.weight": torch.ones(12, 8)},
        "missing",
    ),
    "a weight too many": (with_one("cmt_encoder.weight", spoilt(0)), r"cmt_encoder\.weight unexpected"),
    "another shape": (with_one(LINEAR1, lambda one: one[:-1]), r"linear1\.weight' has shape \(11, 8\)"),
    "parts of two widths": (with_one("fc_a.layers.1.weight", lambda one: one[:-1]), r"shape \(7, 16\)"),
    "no matrix": (with_one("fc_prob.weight", lambda one: one[0]), "wanted a matrix"),
    "NaN": (with_one(LINEAR1, spoilt(float("nan"))), "holds values that are not finite"),
    "too big for float32": (with_one(LINEAR1, lambda one: spoilt(1e300)(one.double())), "not finite"),
    "whole numbers": (with_one(LINEAR1, lambda one: one.to(torch.int32)), "is of torch.int32"),
    "a claim beyond the file": (with_one(LINEAR1, lambda one: torch.zeros(1, 1).expand(10**6, 10**6)), "claim 4000"),
    "another number of classes": (
        lambda state: {name: one[:-1] if name.startswith(("fc_prob", "fc_frame", "fc_av")) else one
                       for name, one in state.items()},
        "is a parser of 2 classes, but dataset/clips.* has 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
def test_a_state_dict_that_is_no_such_parser_is_refused_and_says_what_is_wrong(
    tmp_path: Path, store: Store, state: State, kind: str
) -> None:
    change, message = STATES[kind]
    file = saved(tmp_path, change(state))
    with pytest.raises(StoreError, match=message):
        import_it(store, file)
    assert parsers(store) == []


def test_sources_that_are_none_are_wrong_use_and_huge_files_are_not_read(tmp_path: Path, store: Store) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        import_it(store, tmp_path)
    with pytest.raises(StoreError, match="is not a file"):
        import_it(store, tmp_path / "nowhere.pt")
    with pytest.raises(ParameterError, match="--source FILE"):
        run_step(store, Step("import-parser", "theirs", {}, {"dataset": "dataset/clips"}), progress=Told())
    with (tmp_path / "huge.pt").open("wb") as file:
        file.truncate(5 * 2**30)  # sparse: takes no room
    with pytest.raises(StoreError, match="5368709120 bytes"):
        import_it(store, tmp_path / "huge.pt")


def test_the_bytes_of_the_file_make_the_key_and_its_place_does_not(tmp_path: Path, store: Store, state: State) -> None:
    first = import_it(store, saved(tmp_path, state))
    assert len(first.provenance["sources"]["checkpoint"]) == 64
    (tmp_path / "elsewhere").mkdir()
    assert import_it(store, saved(tmp_path / "elsewhere", state)).key == first.key
    state["fc_prob.bias"][0] += 1
    assert import_it(store, saved(tmp_path, state, "other.pt")).key != first.key
