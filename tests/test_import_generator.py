"""UWAV's released checkpoints come in safely, give the released logits, and what is none is refused by name."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks.stored import load_network
from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator
from avvp_pipe.stages.generators.uwav_released import imported_generator
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Artifact, Store, StoreError
from avvp_pipe.store.verify import verify
from tests.checkpoint_files import Harmful, saved
from tests.released_shapes import State, generator_shapes, random_state
from tests.trees import Told

SMALL = {"width": 8, "ffn": 12, "layers": 2, "audio": 6, "visual": 10}
RELEASED = {"width": 1024, "ffn": 2048, "layers": 5, "audio": 512, "visual": 768}


@pytest.fixture
def state() -> State:
    return random_state(generator_shapes(**SMALL))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def import_it(store: Store, file: Path, told: Told | None = None, **params: Any) -> Artifact:
    step = Step("import-generator", "theirs", {"heads": 2, "source": str(file), **params})
    return run_step(store, step, progress=told or Told()).artifact


@pytest.mark.real_data
def test_an_imported_checkpoint_gives_the_logits_of_the_released_module(
    real_data: Path, tmp_path: Path, store: Store
) -> None:
    # Made with UWAV's code at 15c9a8d, eval mode, torch 2.11 on CPU.
    with np.load(real_data / "golden" / "uwav_generator.npz") as file:
        golden = {name: torch.from_numpy(file[name]) for name in file.files}
    weights = {name.removeprefix("weights/"): golden[name] for name in golden if name.startswith("weights/")}
    made = import_it(store, saved(tmp_path, weights), heads=int(golden["heads"]))
    assert made.attrs["network"]["layers"] == int(golden["layers"])
    model = load_network(made, Network, TemporalGenerator)
    with torch.inference_mode():
        found = model(*(golden[name] for name in ("audio", "visual", "text_audio", "text_visual", "lengths")))
    for logits, name in zip(found, ("audio_logits", "visual_logits"), strict=True):
        assert golden[name].std() > 1
        for clip, length in enumerate(golden["lengths"].tolist()):
            torch.testing.assert_close(logits[clip, :length], golden[name][clip, :length], rtol=0, atol=1e-5)


def test_a_checkpoint_of_the_released_size_has_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        sizes = {name: torch.empty(shape) for name, shape in generator_shapes(**RELEASED).items()}
    parameters = [one for name, one in sizes.items() if not name.endswith("logit_scale")]
    assert sum(one.numel() for one in parameters) == 92_985_856
    state = {name: torch.zeros(one.shape) for name, one in sizes.items()}
    network, weights = imported_generator(state, heads=16)
    drawn = Network()
    assert network == Network(audio_scale=0.0, visual_scale=0.0)
    assert (drawn.width, drawn.layers, drawn.heads, drawn.ffn) == (1024, 5, 16, 2048)
    assert sum(one.numel() for name, one in weights.items() if not name.endswith(".scale")) == 92_985_856


def test_sizes_are_read_off_the_shapes_and_scales_off_the_file(tmp_path: Path, store: Store, state: State) -> None:
    state["a_logit_scale"] = torch.tensor(2.5)
    made = import_it(store, saved(tmp_path, state))
    network = made.attrs["network"]
    assert {name: network[name] for name in ("width", "heads", "ffn", "layers")} == {
        "width": 8, "heads": 2, "ffn": 12, "layers": 2,
    }  # fmt: skip
    assert (network["audio_width"], network["visual_width"]) == (6, 10)
    assert (network["audio_scale"], network["scales"]) == (2.5, "log")
    assert float(made.array("weights/audio.scale")) == 2.5
    assert (made.attrs["method"], made.attrs["origin"]) == ("uwav", "imported")
    assert verify(made).findings == ()


def test_the_bytes_of_the_file_and_the_heads_make_the_key_and_its_place_does_not(
    tmp_path: Path, store: Store, state: State
) -> None:
    first = import_it(store, saved(tmp_path, state))
    assert len(first.provenance["sources"]["checkpoint"]) == 64
    (tmp_path / "elsewhere").mkdir()
    assert import_it(store, saved(tmp_path / "elsewhere", state)).key == first.key
    assert import_it(store, tmp_path / "checkpoint_best.pt", heads=4).key != first.key
    state["proj_a.layers.0.bias"][0] += 1
    assert import_it(store, saved(tmp_path, state, "other.pt")).key != first.key


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
    made = import_it(store, file, told)
    array = made.array("weights/visual.layers.1.self_attn.in_proj_weight")
    wanted = state["v_transformer.encoder.layers.1.self_attn.in_proj_weight"].numpy()
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
    assert list(store.artifacts()) == []


def compressed(path: Path) -> None:
    """The checkpoint with its zip compressed, as a bomb is."""
    data = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in data.namelist():
            packed.writestr(name, data.read(name))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "compressed": (compressed, "compressed archive"),
    "cut off": (cut_off, "cannot be read as tensors alone"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as tensors alone"),
    "text": (lambda path: path.write_text("epoch 1"), "cannot be read as tensors alone"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "cannot be read as tensors alone|holds 'a'"),
    "a list": (lambda path: torch.save([torch.zeros(1)], path), "holds a list"),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), "holds 'epoch', a int"),
    "nothing in it": (lambda path: torch.save({}, path), "holds no tensors"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, store: Store, state: State, kind: str) -> None:
    spoil, message = FILES[kind]
    file = saved(tmp_path, state)
    spoil(file)
    with pytest.raises(StoreError, match=message) as refused:
        import_it(store, file)
    assert str(file) in str(refused.value)
    assert list(store.artifacts()) == []


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


LINEAR1 = "v_transformer.encoder.layers.1.linear1.weight"
STATES: dict[str, tuple[Callable[[State], State], str]] = {
    "a parser": (lambda state: {"hat_encoder.final_norm_a.weight": torch.ones(4)}, r"holds a parser \(HAN"),
    "another network": (lambda state: {"layers.0.weight": torch.ones(4, 4)}, "is no generator of UWAV's release"),
    "a weight missing": (without(LINEAR1), r"visual\.layers\.1\.linear1\.weight missing"),
    "a whole part missing": (without("final_proj_a.layers.1.weight"), "audio.leave.2.weight missing"),
    "a scale missing": (without("v_logit_scale"), "lacks the number v_logit_scale"),
    "a layer missing": (
        lambda state: {name.replace("a_transformer.encoder.layers.1", "a_transformer.encoder.layers.7"): one
                       for name, one in state.items()},
        r"audio\.layers\.1\..* missing, audio\.layers\.7",
    ),
    "a weight too many": (with_one("proj_x.weight", spoilt(0)), r"proj_x\.weight unexpected"),
    "another shape": (with_one(LINEAR1, lambda one: one[:-1]), r"linear1\.weight' has shape \(11, 8\)"),
    "modalities of two widths": (with_one("proj_v.layers.1.weight", lambda one: one[:-1]), r"shape \(7, 16\)"),
    "no matrix": (with_one("proj_a.layers.0.weight", lambda one: one[0]), "wanted a matrix"),
    "NaN": (with_one(LINEAR1, spoilt(float("nan"))), "holds values that are not finite"),
    "infinity": (with_one(LINEAR1, spoilt(float("inf"))), "holds values that are not finite"),
    "too big for float32": (with_one(LINEAR1, lambda one: spoilt(1e300)(one.double())), "not finite"),
    "whole numbers": (with_one(LINEAR1, lambda one: one.to(torch.int32)), "is of torch.int32"),
    "a scale that is none": (with_one("a_logit_scale", spoilt(100.0)), "wanted the logarithm of a logit scale"),
    "a claim beyond the file": (with_one(LINEAR1, lambda one: torch.zeros(1, 1).expand(10**6, 10**6)), "claim 4000"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
def test_a_state_dict_that_is_no_generator_is_refused_and_says_what_is_wrong(
    tmp_path: Path, store: Store, state: State, kind: str
) -> None:
    change, message = STATES[kind]
    file = saved(tmp_path, change(state))
    with pytest.raises(StoreError, match=message):
        import_it(store, file)
    assert list(store.artifacts()) == []


def test_heads_that_cannot_be_and_sources_that_are_none_are_wrong_use(
    tmp_path: Path, store: Store, state: State
) -> None:
    file = saved(tmp_path, state)
    with pytest.raises(StoreError, match=r"3 heads do not divide the width 8.*--heads"):
        import_it(store, file, heads=3)
    with pytest.raises(StoreError, match="is a folder"):
        import_it(store, tmp_path)
    with pytest.raises(StoreError, match="is not a file"):
        import_it(store, tmp_path / "nowhere.pt")
    with pytest.raises(ParameterError, match="--source FILE"):
        run_step(store, Step("import-generator", "theirs", {}), progress=Told())


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, store: Store) -> None:
    with (tmp_path / "huge.pt").open("wb") as file:
        file.truncate(5 * 2**30)  # sparse: takes no room
    with pytest.raises(StoreError, match="5368709120 bytes"):
        import_it(store, tmp_path / "huge.pt")
