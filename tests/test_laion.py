"""LAION's CLAP against the package itself, with random weights of full size."""

import contextlib
import io
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from avvp_pipe.stages.blocks.undrawn import undrawn
from avvp_pipe.stages.teachers import clap
from avvp_pipe.stages.teachers import laion as laion_module
from avvp_pipe.stages.teachers.laion import LaionClap, load_laion, read_checkpoint, roberta_tokenizer
from avvp_pipe.stages.teachers.laion_audio import FULL, filled, resampled
from avvp_pipe.stages.teachers.laion_import import ROBERTA, empty_clap
from tests.small_roberta import write_tokenizer

LOG_SCALE = 3.25
PROMPTS = ("This is a sound of speech", "dog", "", "bell, ÄÖ 漢字 " * 60, "rain & <mask> thunder")


def lively(model: Any) -> None:
    """Random weights under which different sounds and texts differ; fresh ones make nearly the same of all."""
    random = torch.Generator().manual_seed(3)
    frozen = ("spectrogram_extractor", "logmel_extractor")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(one in name for one in frozen):
                continue
            if "bias_table" in name:
                weight.normal_(0, 0.5, generator=random)
            elif weight.ndim > 1:
                weight.normal_(0, weight[0].numel() ** -0.5, generator=random)
            elif name.endswith("weight"):
                weight.uniform_(0.5, 1.5, generator=random)
            else:
                weight.normal_(0, 0.1, generator=random)
        model.audio_branch.bn0.running_mean.normal_(-20, 5, generator=random)
        model.audio_branch.bn0.running_var.uniform_(200, 600, generator=random)
        model.logit_scale_a.fill_(LOG_SCALE)


@contextlib.contextmanager
def offline(tokenizer: Any, roberta: Any) -> Iterator[None]:
    """laion_clap asks the hub while it is imported and built; it gets these instead."""
    import transformers

    kinds = (transformers.BertTokenizer, transformers.RobertaTokenizer, transformers.BartTokenizer)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in kinds:
            patch.setattr(kind, "from_pretrained", lambda *_: tokenizer)
        patch.setattr(transformers.RobertaModel, "from_pretrained", lambda *_: roberta)
        patch.setattr(sys, "path", list(sys.path))
        yield


def package_module(tokenizer: Any, roberta: Any, *, fused: bool) -> Any:
    """laion_clap's CLAP_Module by its own constructor."""
    with offline(tokenizer, roberta), contextlib.redirect_stdout(io.StringIO()):
        import laion_clap

        return laion_clap.CLAP_Module(enable_fusion=fused, device="cpu")


@dataclass(frozen=True)
class Laion:
    """The package's model, and its weights in files."""

    package: Any
    fused: Path
    unfused: Path
    tokenizer: tuple[Path, Path]

    def load(self, name: str = "HTSAT-tiny-fused", precision: str = "fp32", fill: str = "repeatpad") -> LaionClap:
        found = clap.load(name, str(self.fused if name.endswith("fused") else self.unfused), "cpu", precision, fill)
        assert isinstance(found, LaionClap)
        return found


@pytest.fixture(scope="module")
def laion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laion]:
    """A fused model as LAION publishes them, `module.` before the names and training's numbers beside the tensors."""
    from safetensors.torch import save_file
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    folder = tmp_path_factory.mktemp("laion")
    tokenizer = write_tokenizer(folder)
    with undrawn():  # every weight is drawn below
        roberta = RobertaModel(RobertaConfig(**ROBERTA))
        package = package_module(RobertaTokenizer(*map(str, tokenizer)), roberta, fused=True)
    lively(package.model)
    state = package.model.state_dict()
    published = {f"module.{key}": tensor for key, tensor in state.items()}
    published["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    torch.save({"epoch": 3, "loss": np.float64(0.5), "state_dict": published}, folder / "fused.pt")
    plain = {key: tensor for key, tensor in state.items() if "mel_conv2d" not in key and "fusion_model" not in key}
    save_file({key: tensor.contiguous() for key, tensor in plain.items()}, folder / "unfused.safetensors")
    yield Laion(package, folder / "fused.pt", folder / "unfused.safetensors", tokenizer)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def teacher(laion: Laion) -> LaionClap:
    return laion.load()


def sounds(*lengths: int) -> list[NDArray[np.float32]]:
    """Tones and noises rounded to 16 bits as laion_clap rounds them, one of each length."""
    random, pieces = np.random.default_rng(7), []
    for length in lengths:
        time = np.arange(length) / 48_000
        beats = np.sin(2 * np.pi * random.uniform(1, 10) * time) > random.uniform(-1, 0.5)
        wave = np.sin(2 * np.pi * random.uniform(80, 6000) * time) * random.uniform(0.05, 0.9) * beats
        wave += random.normal(size=length) * 10 ** random.uniform(-4, -1)
        pieces.append((np.trunc(wave.clip(-1, 1) * 32767) / 32767).astype(np.float32))
    return pieces


def cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float64]:
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    found = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return np.asarray(found)


def package_sounds(package: Any, pieces: Sequence[NDArray[np.float32]], *, rounded: bool = True) -> NDArray[np.float32]:
    """The package's own call; as tensors where the pieces are rounded, since it rounds numpy input again."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Argument 'onesided' has been deprecated", UserWarning)
        if not rounded:
            return np.asarray(package.get_audio_embedding_from_data(pieces))
        found: Tensor = package.get_audio_embedding_from_data([torch.from_numpy(x) for x in pieces], use_tensor=True)
    return np.asarray(found.numpy())


LENGTHS = (48_000, 48_051, 48_000, 1_001, 300_000, FULL)


@pytest.fixture(scope="module")
def theirs(laion: Laion) -> NDArray[np.float32]:
    return package_sounds(laion.package, sounds(*LENGTHS))


@pytest.fixture(scope="module")
def ours(teacher: LaionClap) -> NDArray[np.float32]:
    return teacher.sounds(sounds(*LENGTHS))


def test_sounds_equal_the_packages_own_call(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    assert cosines(ours, theirs).min() >= 0.999999
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    assert (theirs @ theirs.T).min() < 0.9, "these weights tell nothing apart, so that nothing was tested"


def test_the_packages_rounding_of_numpy_input_is_ours(laion: Laion, teacher: LaionClap) -> None:
    raw = np.random.default_rng(1).normal(0, 0.3, 48_000).astype(np.float32)
    rounded = (np.trunc(raw.clip(-1, 1) * 32767) / 32767).astype(np.float32)
    assert cosines(teacher.sounds([rounded]), package_sounds(laion.package, [raw], rounded=False)) >= 0.999999


def test_half_the_bits_keep_the_embedding(laion: Laion, theirs: NDArray[np.float32]) -> None:
    teacher = laion.load(precision="bf16")
    ours = teacher.sounds(sounds(*LENGTHS))
    assert ours.dtype == np.float32
    assert 0.999 <= cosines(ours, theirs).min() < 0.9999999
    assert teacher.texts(["dog"]).dtype == np.float32


def test_an_unfused_model_equals_the_packages_too(laion: Laion) -> None:
    with undrawn():
        package = package_module(laion.package.tokenize, laion.package.model.text_branch, fused=False)
    package.model.load_state_dict(read_checkpoint(laion.unfused))
    pieces = sounds(48_000, 48_051, 1_001)
    ours = laion.load("HTSAT-tiny").sounds(pieces)
    assert cosines(ours, package_sounds(package, pieces)).min() >= 0.999999


def test_a_sound_depends_neither_on_the_batch_nor_on_its_order(teacher: LaionClap, ours: NDArray[np.float32]) -> None:
    pieces = sounds(*LENGTHS)
    pieces[3] = np.full(48_000, np.nan, np.float32)
    found = teacher.sounds(pieces[:0:-1])[::-1]
    assert np.isnan(found[2]).all(), "a broken piece breaks itself"
    np.testing.assert_allclose(np.delete(found, 2, 0), np.delete(ours[1:], 2, 0), atol=2e-6)
    assert teacher.sounds([]).shape == (0, 512)


def test_an_array_of_seconds_is_as_good_as_a_list(teacher: LaionClap, ours: NDArray[np.float32]) -> None:
    pieces = sounds(*LENGTHS)
    np.testing.assert_allclose(teacher.sounds(np.stack([pieces[2], pieces[0]])), ours[[2, 0]], atol=2e-6)


def test_maps_are_what_the_package_pools(laion: Laion, teacher: LaionClap) -> None:
    seen: list[Tensor] = []
    hook = laion.package.model.audio_branch.tscam_conv.register_forward_pre_hook(lambda _, x: seen.append(x[0].clone()))
    wave = sounds(470_123)[0]
    index = np.round(np.linspace(0, len(wave) - 1, FULL)).astype(int)
    package_sounds(laion.package, [wave[index]])
    hook.remove()
    pooled = seen[0].numpy()
    ours = teacher.maps(wave[None])
    assert pooled.shape == (1, 768, 2, 32)
    np.testing.assert_allclose(ours, pooled.reshape(1, 768, 64).transpose(0, 2, 1), atol=2e-4)
    assert ours.std() > 0.1
    assert teacher.has_maps


def test_texts_equal_the_packages_own_call(laion: Laion, teacher: LaionClap) -> None:
    with torch.no_grad():
        theirs = laion.package.get_text_embedding(list(PROMPTS))
    assert cosines(teacher.texts(PROMPTS), theirs).min() >= 0.999999
    assert (theirs @ theirs.T).min() < 0.99
    assert cosines(teacher.texts(PROMPTS[1:2]), theirs[1:2]) >= 0.999999, "a text depends on its neighbours"


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=120))
def test_any_text_becomes_the_tokens_that_the_package_makes(laion: Laion, teacher: LaionClap, text: str) -> None:
    theirs = laion.package.tokenizer([text])
    ours = teacher.tokenizer.encode(text)
    assert ours.ids == theirs["input_ids"][0].tolist()
    assert ours.attention_mask == theirs["attention_mask"][0].tolist()


def test_the_scale_is_the_models_log_parameter(teacher: LaionClap) -> None:
    assert teacher.log_scale == LOG_SCALE
    assert (teacher.name, teacher.width, teacher.sample_rate) == ("HTSAT-tiny-fused", 512, 48_000)


def test_a_second_is_repeated_ten_times_and_a_little_more_only_nine() -> None:
    exact, more = sounds(48_000, 48_051)
    waves = filled([exact, more], "repeatpad")
    np.testing.assert_array_equal(waves[0], np.concatenate([exact] * 10))
    np.testing.assert_array_equal(waves[1], np.concatenate([*[more] * 9, np.zeros(47_541, np.float32)]))
    padded = filled([more], "pad")[0]
    np.testing.assert_array_equal(padded[:48_051], more)
    assert not padded[48_051:].any()


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, FULL), fill=st.sampled_from(["repeatpad", "pad"]))
def test_filling_equals_copying_one_by_one(length: int, fill: str) -> None:
    piece = np.linspace(-1, 1, length, dtype=np.float32)
    slow = piece.copy()
    if fill == "repeatpad":
        slow = np.tile(piece, int(FULL / length))
    slow = np.concatenate([slow, np.zeros(FULL - len(slow), np.float32)])
    np.testing.assert_array_equal(filled([piece], fill)[0], slow)


@pytest.mark.parametrize("length", [1, 7, 441_000, FULL, 485_000])
def test_resampling_takes_the_nearest_sample(length: int) -> None:
    wave = np.arange(length, dtype=np.float32)
    found = resampled(wave[None])[0]
    assert len(found) == FULL
    assert (found[0], found[-1]) == (0, length - 1)
    some = np.linspace(0, FULL - 1, 50).astype(int)
    slow = [round(index * (length - 1) / (FULL - 1)) for index in some.tolist()]
    assert np.abs(found[some] - slow).max() <= (1 if length > 1 else 0)


@pytest.mark.parametrize("shape", [(FULL + 1,), (0,), (2, 10)])
def test_a_piece_that_would_be_cut_at_random_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="1 to 480000 samples are wanted"):
        filled([np.zeros(shape, np.float32)], "repeatpad")


def test_a_checkpoint_in_another_model_names_the_right_one(laion: Laion) -> None:
    with pytest.raises(ValueError, match="use HTSAT-tiny-fused"):
        load_laion("HTSAT-tiny", (laion.fused, *laion.tokenizer), device="cpu", precision="fp32", fill="pad")
    with pytest.raises(ValueError, match=r"use HTSAT-tiny$"):
        load_laion("HTSAT-base", (laion.unfused, *laion.tokenizer), device="cpu", precision="fp32", fill="pad")
    with pytest.raises(ValueError, match="630k-best holds weights of HTSAT-tiny,"):
        clap.files("HTSAT-tiny-fused", "630k-best")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": torch.zeros(2)}, "lacks logit_scale_a, logit_scale_t"),
        ({"audio_branch.patch_embed.proj.weight": torch.zeros(7, 1)}, "lacks logit_scale_a"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"state_dict": {"a": "b"}}, "wanted tensors by name"),
    ],
)
def test_what_is_no_clap_is_said_to_be_none(laion: Laion, tmp_path: Path, state: Any, said: str) -> None:
    file = tmp_path / "other.pt"
    torch.save(state, file)
    with pytest.raises(ValueError, match=said):
        load_laion("HTSAT-tiny", (file, *laion.tokenizer), device="cpu", precision="fp32", fill="pad")


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.full((2, 2), torch.inf), "weight holds values that are not finite"),
        (torch.ones(2, 2, dtype=torch.int8), "weight is of torch.int8, wanted torch.float32"),
    ],
)
def test_weights_that_are_no_fractions_or_not_finite_are_refused(weight: Tensor, said: str) -> None:
    model = torch.nn.Linear(2, 2, bias=False)
    with pytest.raises(ValueError, match=said):
        laion_module._check_keys("HTSAT-tiny", Path("a.pt"), {"weight": weight}, model)


class Harmful:
    """Writes a file when unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "extra": Harmful(tmp_path / "ran")}, tmp_path / "harmful.pt")
    with pytest.raises(ValueError, match=r"harmful\.pt .*tensors"):
        read_checkpoint(tmp_path / "harmful.pt")
    assert not (tmp_path / "ran").exists()


def test_files_come_from_the_local_cache_alone(laion: Laion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="run: avvp-pipe models fetch HTSAT-tiny-fused,"):
        clap.files("HTSAT-tiny-fused")
    for repository, file in clap.hub_files("HTSAT-tiny-fused"):
        origin = laion.fused if file.endswith(".pt") else laion.tokenizer[0].parent / file
        snapshot = tmp_path / f"models--{repository.replace('/', '--')}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / file).symlink_to(origin)
        (snapshot.parents[1] / "refs").mkdir(exist_ok=True)
        (snapshot.parents[1] / "refs" / "main").write_text("abc")
    checkpoint, vocabulary, merges = clap.files("HTSAT-tiny-fused")
    assert checkpoint.name == "630k-fusion-best.pt"
    assert (vocabulary.name, merges.name) == ("vocab.json", "merges.txt")
    assert vocabulary.parts[-4] == "models--roberta-base"


def test_a_checkpoint_of_ones_own_takes_the_tokenizer_beside_it(tmp_path: Path, laion: Laion) -> None:
    (tmp_path / "mine.pt").write_bytes(b"")
    for file in laion.tokenizer:
        shutil.copy(file, tmp_path)
    assert clap.files("HTSAT-tiny", str(tmp_path)) == tuple(
        tmp_path / one for one in ("mine.pt", "vocab.json", "merges.txt")
    )
    (tmp_path / "other.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"came mine\.pt, other\.pt; name the file"):
        clap.files("HTSAT-tiny", str(tmp_path))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: clap.facts("HTSAT-huge"), "there are HTSAT-tiny-fused"),
        (lambda: clap.files("HTSAT-tiny", "nowhere.pt"), "neither a tag of HTSAT-tiny"),
        (lambda: clap.load("HTSAT-tiny", precision="fp16"), "fp16 wants a CUDA device"),
        (lambda: clap.load("HTSAT-tiny", precision="int8"), "precision must be"),
        (lambda: clap.load("HTSAT-tiny", fill="repeat"), "fill must be repeatpad or pad"),
    ],
)
def test_wrong_use_is_told_what_to_do(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_what_every_name_takes_is_known_without_weights() -> None:
    assert {name: clap.facts(name) for name in clap.LAION} == dict.fromkeys(clap.LAION, (48_000, 512))
    assert set(clap.CHECKPOINTS.values()) == set(clap.LAION)
    for name, record in clap.LAION.items():
        assert clap.CHECKPOINTS[record.default] == name
        assert clap.hub_files(name)[0] == ("lukewys/laion_clap", f"{record.default}.pt")


def test_a_damaged_tokenizer_is_told(tmp_path: Path, laion: Laion) -> None:
    vocabulary = tmp_path / "vocab.json"
    for text, said in (
        ("{", "not a tokenizer's"),
        ('{"<s>": 0}', "lacks RoBERTa's token"),
        ("[]", "not a tokenizer's"),
    ):
        vocabulary.write_text(text)
        with pytest.raises(ValueError, match=said):
            roberta_tokenizer(vocabulary, laion.tokenizer[1])
    vocabulary.write_text('{"<s>": 1, "<pad>": 0, "</s>": 2}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="not RoBERTa's"):
        roberta_tokenizer(vocabulary, tmp_path / "merges.txt")


def test_an_empty_model_draws_nothing_and_puts_everything_back() -> None:
    before = torch.get_rng_state()
    model, config = empty_clap("HTSAT-base", fused=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert config["sample_rate"] == 48_000
    swin, models = sys.modules["clap_module.htsat"], sys.modules["clap_module.model"]
    assert swin.trunc_normal_.__module__ == "clap_module.htsat"
    assert not isinstance(models.RobertaModel, SimpleNamespace)
    assert not model.training


ALONE = """
import sys
sys.addaudithook(lambda event, args: sys.exit(f"network: {event}") if event.startswith("socket.") and event not in
    ("socket.__new__", "socket.gethostname") else None)
from avvp_pipe.stages.teachers import clap
assert clap.hub_files("HTSAT-tiny-fused") and "torch" not in sys.modules, "clap imports torch"
paths = list(sys.path)
from avvp_pipe.stages.teachers.laion_import import empty_clap
empty_clap("HTSAT-tiny", fused=True)
assert sys.path == paths, "sys.path changed"
assert "laion_clap" not in sys.modules
"""


def test_the_import_asks_no_network_says_nothing_and_leaves_the_path_alone() -> None:
    done = subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", ALONE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
