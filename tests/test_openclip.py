"""open_clip's models as teachers: as the library computes them, from local files, and nothing wrong let through."""

import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from avvp_pipe.stages.blocks.undrawn import undrawn
from avvp_pipe.stages.teachers import openclip as openclip_module
from avvp_pipe.stages.teachers import teacher_digest, visual_facts, visual_teacher
from avvp_pipe.stages.teachers.checkpoint import read_state
from avvp_pipe.stages.teachers.openclip_catalogue import names, other_gelu, tags
from avvp_pipe.stages.teachers.openclip_files import configuration, hub_files, locate
from tests.clip_weights import SMALL, cached_file, local_folder, random_state

REAL = "ViT-L-14-quickgelu"
PROMPTS = ["A photo of a dog.", "a photo of a Vaccum cleaner", "naïve 日本 🦊", "", "long " * 200]


def cosines(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The smallest cosine of rows that belong together."""
    return float((one * other).sum(axis=1).min())


def some_frames(count: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def by_the_library(model: Any, preprocess: Any, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One frame at a time, as open_clip's README has it."""
    with torch.no_grad():
        rows = [model.encode_image(preprocess(Image.fromarray(one))[None], normalize=True) for one in frames]
    return np.asarray(torch.cat(rows).numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return local_folder(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def small(folder: Path) -> openclip_module.OpenClip:
    return openclip_module.load("small", str(folder))


@pytest.fixture(scope="module")
def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "open_clip_model.safetensors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("went to the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


# --- as the library computes them


def test_the_real_architecture_agrees_with_the_library_and_half_precision_with_it(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with undrawn():
        save_file(random_state(open_clip.CLIP(**configuration(REAL)), dtype=torch.float16), path)
    frames = some_frames(2, 224)
    ours = openclip_module.load(REAL, str(path))
    seen, said = ours.images(frames), ours.texts(PROMPTS[:1])
    assert (ours.width, ours.image_size) == (seen.shape[1], 224) == (768, 224)
    del ours
    half = openclip_module.load(REAL, str(path), precision="bf16")
    assert cosines(half.images(frames), seen) >= 0.999
    del half
    with undrawn():
        model, _, preprocess = open_clip.create_model_and_transforms(REAL, pretrained=str(path))
    model.eval()
    assert cosines(seen, by_the_library(model, preprocess, frames)) >= 0.999999
    with torch.no_grad():
        theirs = model.encode_text(open_clip.get_tokenizer(REAL)(PROMPTS[:1]), normalize=True).numpy()
    assert cosines(said, theirs) >= 0.999999


KINDS: dict[str, dict[str, Any]] = {
    "vit": SMALL,
    "plain gelu": {**SMALL, "quick_gelu": False},
    "resnet": {**SMALL, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}},
    "timm": {
        **SMALL,
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 32},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tower_agrees_with_open_clips_own_call(kind: str, tmp_path: Path) -> None:
    preprocess_cfg = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    place = local_folder(tmp_path / "model", KINDS[kind], preprocess=preprocess_cfg)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{place}")
    model.eval()
    frames = some_frames(5, 32)
    ours = openclip_module.load("mine", str(place))
    assert cosines(ours.images(frames), by_the_library(model, preprocess, frames)) >= 0.999999
    with torch.no_grad():
        theirs = model.encode_text(open_clip.get_tokenizer(f"local-dir:{place}")(PROMPTS), normalize=True).numpy()
    assert cosines(ours.texts(PROMPTS), theirs) >= 0.999999
    assert ours.log_scale == pytest.approx(float(model.logit_scale.detach()))
    half = openclip_module.load("mine", str(place), precision="bf16")
    assert cosines(half.images(frames), ours.images(frames)) >= 0.999
    np.testing.assert_array_equal(half.texts(PROMPTS), ours.texts(PROMPTS))


@pytest.fixture(scope="module")
def alone(small: openclip_module.OpenClip) -> NDArray[np.float32]:
    """Embeddings of some frames, each in a batch of its own."""
    return np.concatenate([small.images(one[None]) for one in some_frames(9, 32)])


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(9)), cuts=st.sets(st.integers(1, 8)))
def test_neither_batch_nor_order_changes_an_embedding(
    small: openclip_module.OpenClip, alone: NDArray[np.float32], order: list[int], cuts: set[int]
) -> None:
    batches = np.split(some_frames(9, 32)[order], sorted(cuts))
    found = np.concatenate([small.images(batch) for batch in batches])
    assert cosines(found, alone[order]) >= 0.999999
    np.testing.assert_allclose(found, alone[order], atol=2e-6)


def test_the_same_call_gives_the_same_bits(small: openclip_module.OpenClip) -> None:
    frames = some_frames(7, 32)
    np.testing.assert_array_equal(small.images(frames), small.images(frames.copy()))


def test_frames_of_floats_and_of_bytes_are_the_same_frames(small: openclip_module.OpenClip) -> None:
    frames = some_frames(3, 32)
    np.testing.assert_array_equal(small.images(frames.astype(np.float32)), small.images(frames))
    between = frames.astype(np.float32) * 0.5 + 0.25
    assert cosines(small.images(between), small.images(frames)) < 1


def test_frames_may_be_read_only_mirrored_or_none_at_all(small: openclip_module.OpenClip) -> None:
    frames = some_frames(3, 32)
    expected = small.images(np.ascontiguousarray(frames[:, ::-1]))
    np.testing.assert_array_equal(small.images(frames[:, ::-1]), expected)
    frames.flags.writeable = False
    assert small.images(frames).shape == (3, 48)
    assert small.images(frames[:0]).shape == (0, 48)
    assert small.texts([]).shape == (0, 48)


def test_embeddings_are_of_length_one_and_float32(small: openclip_module.OpenClip) -> None:
    for found in (small.images(some_frames(4, 32)), small.texts(PROMPTS)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "came"),
    [
        (np.zeros((2, 33, 32, 3), np.uint8), r"came \(2, 33, 32, 3\)"),
        (np.zeros((2, 32, 32), np.uint8), r"came \(2, 32, 32\)"),
        (np.zeros((2, 32, 32, 3), np.float64), "of float64"),
    ],
)
def test_frames_of_another_size_or_type_are_refused(
    small: openclip_module.OpenClip, frames: NDArray[Any], came: str
) -> None:
    with pytest.raises(ValueError, match=rf"wants frames \(B, 32, 32, 3\).*{came}.*--frame-size 32"):
        small.images(frames)


def test_what_is_said_of_a_model_without_loading_it_is_true_of_it(small: Any, folder: Path) -> None:
    facts = visual_facts("small", str(folder))
    assert (facts.image_size, facts.width) == (small.image_size, small.width)
    assert (visual_facts(REAL).image_size, visual_facts(REAL).width) == (224, 768)
    assert visual_facts("ViT-L-14-336-quickgelu").image_size == 336


@pytest.mark.parametrize(("precision", "said"), [("fp16", "use bf16"), ("int8", "there are fp32, bf16, fp16")])
def test_a_precision_that_a_cpu_has_not_is_refused(folder: Path, precision: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        visual_teacher("small", weights=str(folder), precision=precision)


# --- which weights


def test_names_and_tags_are_open_clips_own() -> None:
    assert list(names()) == sorted(open_clip.list_models())
    assert tags() == open_clip.pretrained._PRETRAINED
    for name in names():
        assert visual_facts(name).image_size >= 224


def test_nothing_is_imported_to_answer_for_names_facts_and_digests(folder: Path) -> None:
    code = (
        "import sys; from avvp_pipe.stages.teachers import teacher_digest, visual_facts; "
        f"visual_facts('{REAL}'); teacher_digest('small', {str(folder)!r}); "
        "assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("ViT-L-14", "", "'openai' were trained with QuickGELU, ViT-L-14 computes GELU: use ViT-L-14-quickgelu"),
        ("ViT-L-14", "metaclip-400m", "use ViT-L-14-quickgelu"),
        (REAL, "datacomp_xl_s13b_b90k", "'datacomp_xl_s13b_b90k' is a tag of ViT-L-14.*use ViT-L-14"),
        ("ViT-H-14", "", "no tag 'openai'; open_clip has the tags laion2b_s32b_b79k"),
        ("ViT-B-16-SigLIP", "nowhere.pt", "'nowhere.pt' is neither a tag nor a file nor a folder.*webli"),
        ("ViT-M-16", "", "open_clip has no weights for it"),
        ("ViT-Z-1", "", "no visual teacher 'ViT-Z-1'; there are tiny-clip, and open_clip's.*models ls --all"),
        ("HTSAT-tiny-fused", "", "HTSAT-tiny-fused is no visual teacher, it listens"),
        ("tiny-clip", "openai", "tiny-clip has its own weights"),
    ],
)
def test_weights_that_do_not_belong_are_refused_with_what_does(name: str, weights: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        visual_teacher(name, weights=weights)


def test_every_tag_is_loadable_under_some_name() -> None:
    for name, known in tags().items():
        for tag in known:
            right = name
            try:
                hub_files(name, tag)
            except ValueError:
                right = other_gelu(name)
                assert tag in tags()[right]
            assert hub_files(right, tag)[0].repo.count("/") == 1


def test_a_tag_that_is_not_on_this_machine_names_the_command_that_brings_it(cache: Path, no_network: None) -> None:
    with pytest.raises(ValueError, match=rf"missing on this machine.*`avvp-pipe models fetch {REAL}`.*--visual-w"):
        visual_teacher(REAL)
    with pytest.raises(ValueError, match="models fetch ViT-H-14 --weights laion2b_s32b_b79k"):
        teacher_digest("ViT-H-14", "laion2b_s32b_b79k")


def test_a_tag_is_found_in_the_cache_and_safetensors_before_others(cache: Path, no_network: None) -> None:
    repo = "timm/vit_large_patch14_clip_224.openai"
    plain = cached_file(cache, repo, "open_clip_pytorch_model.bin", b"plain")
    assert locate(REAL, "openai").checkpoint == plain
    safe = cached_file(cache, repo, "open_clip_model.safetensors", b"safe")
    assert locate(REAL).checkpoint == safe
    assert locate(REAL).mean == (0.48145466, 0.4578275, 0.40821073)


def test_normalisation_is_the_tags_or_that_of_all_tags(cache: Path, tmp_path: Path) -> None:
    cached_file(cache, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "open_clip_model.safetensors", b"")
    assert locate("ViT-L-14", "laion2b_s32b_b82k").mean == (0.5, 0.5, 0.5)
    cached_file(cache, "timm/ViT-B-16-SigLIP", "tokenizer.json", b"{}")
    file = tmp_path / "file.safetensors"
    file.write_bytes(b"")
    assert locate("ViT-B-16-SigLIP", str(file)).std == (0.5, 0.5, 0.5)
    assert locate("ViT-L-14", str(file)).std == (0.26862954, 0.26130258, 0.27577711)


def test_a_folder_must_be_of_the_model_that_it_is_named_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not of ViT-B-32: embed_dim 48, wanted 512.*a name of your own"):
        visual_teacher("ViT-B-32", weights=str(local_folder(tmp_path / "model")))
    with pytest.raises(ValueError, match=r"is a folder without open_clip_config.json"):
        visual_teacher("ViT-B-32", weights=str(tmp_path))
    (tmp_path / "model" / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"holds no weights; wanted one of open_clip_model.safetensors"):
        visual_teacher("small", weights=str(tmp_path / "model"))


def test_a_file_beside_a_configuration_with_the_other_gelu_is_refused(tmp_path: Path) -> None:
    own = configuration("ViT-B-32")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**own, "quick_gelu": True}}))
    (tmp_path / "mine.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="quick_gelu True, wanted False; give the name it belongs to"):
        teacher_digest("ViT-B-32", str(tmp_path / "mine.safetensors"))
    assert teacher_digest("ViT-B-32-quickgelu", str(tmp_path / "mine.safetensors"))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_cfg": 3}', '{"model_cfg": {"embed_dim": "x"}}', "[" * 100000])
def test_a_configuration_that_is_none_is_refused(folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "open_clip_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"open_clip_config\.json"):
        visual_teacher("small", weights=str(tmp_path))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"text_cfg": {"tokenizer_kwargs": {"trust_remote_code": True}}}, "tokenizer_kwargs may hold clean, language"),
        ({"text_cfg": {"tokenizer_kwargs": ["clean"]}}, "tokenizer_kwargs may hold clean, language"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:timm/resnet10t.c3_in1k"}}, "must be a model of timm's own"),
        ({"vision_cfg": {"image_size": 10**6}}, "one image_size up to 4096"),
        ({"vision_cfg": {"unheard": 1}}, "open_clip makes no network of this configuration: TypeError: .*unheard"),
        ({"vision_cfg": {"width": 10**12}}, "open_clip makes no network of this configuration"),
    ],
)
def test_a_configuration_that_asks_for_more_than_its_folder_is_refused(
    folder: Path, tmp_path: Path, no_network: None, part: dict[str, Any], said: str
) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "model"))
    config = {**SMALL, **{name: {**SMALL[name], **more} for name, more in part.items()}}
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(ValueError, match=said):
        visual_teacher("mine", weights=str(place))


def test_code_beside_a_tokenizer_is_not_run(tmp_path: Path, no_network: None) -> None:
    text = {**SMALL["text_cfg"], "vocab_size": 9, "context_length": 16}
    place = local_folder(tmp_path / "model", {**SMALL, "text_cfg": text})
    config = {**SMALL, "text_cfg": {**text, "hf_tokenizer_name": "some/words"}}
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    a_tokenizer(place)
    record = json.loads((place / "tokenizer_config.json").read_text())
    asked = {**record, "tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["harm.Own", None]}}
    (place / "tokenizer_config.json").write_text(json.dumps(asked))
    (place / "harm.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(ValueError, match="cannot be read as a tokenizer"):
        visual_teacher("mine", weights=str(place))
    assert not (tmp_path / "ran").exists()


# --- checkpoint files


@pytest.fixture
def read(folder: Path, tmp_path: Path) -> Callable[[str], openclip_module.OpenClip]:
    """`read("a.pt")` loads a checkpoint beside the small model's configuration."""
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())

    def load(name: str) -> openclip_module.OpenClip:
        (tmp_path / name).replace(tmp_path / f"open_clip_pytorch_model{Path(name).suffix}")
        return openclip_module.load("small", str(tmp_path))

    return load


def variants(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {
        "bare": weights,
        "nested": {"epoch": 3, "name": "run", "state_dict": weights},
        "parallel": {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}},
        "scale of one number": {**weights, "logit_scale": weights["logit_scale"].reshape(1)},
    }


@pytest.mark.parametrize("variant", ["bare", "nested", "parallel", "scale of one number"])
def test_checkpoints_of_torch_load_like_safetensors(
    read: Any, small: Any, weights: dict[str, torch.Tensor], tmp_path: Path, variant: str
) -> None:
    torch.save(variants(weights)[variant], tmp_path / "a.bin")
    frames = some_frames(2, 32)
    np.testing.assert_array_equal(read("a.bin").images(frames), small.images(frames))


def test_half_precision_files_are_read_into_fp32(read: Any, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in weights.items()}, tmp_path / "a.safetensors")
    assert {one.dtype for one in read("a.safetensors").model.state_dict().values()} == {torch.float32}


def changed(weights: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    merged = {**weights, **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
    return {name: tensor for name, tensor in merged.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"visual__proj": None}, "visual.proj missing, nothing unexpected"),
        ({"visual__extra": torch.zeros(1)}, "nothing missing, visual.extra unexpected"),
        ({"visual__positional_embedding": torch.zeros(50, 64)}, r"has shape \(50, 64\).*wants \(17, 64\)"),
        ({"visual__proj": torch.full((64, 48), torch.nan)}, "'visual.proj' holds values that are not finite"),
        ({"visual__proj": torch.ones(64, 48, dtype=torch.int8)}, "'visual.proj' is of torch.int8.*wants torch.float32"),
        ({"visual__proj": torch.ones(64, 48).to(torch.float8_e4m3fn)}, "'visual.proj', .*float8.*wanted plain tensors"),
    ],
)
def test_weights_that_do_not_fit_are_refused_naming_the_first(
    read: Any, weights: dict[str, torch.Tensor], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    save_file(changed(weights, **changes), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=rf"open_clip_pytorch_model.safetensors as small: .*{said}"):
        read("a.safetensors")


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def test_a_checkpoint_with_code_is_refused_and_the_code_not_run(read: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"cannot be read as tensors alone.*convert it to safetensors"):
        read("a.bin")
    (tmp_path / "b.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        read("b.bin")
    assert not (tmp_path / "sprung").exists()


def test_openais_archives_are_refused_with_where_to_get_the_same_weights(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ViT-L-14.pt", "w") as archive:
        archive.writestr("ViT-L-14/constants.pkl", b"")
        archive.writestr("ViT-L-14/code/__torch__.py", b"")
    with pytest.raises(ValueError, match=r"TorchScript archive.*`avvp-pipe models fetch ViT-L-14-quickgelu`"):
        read_state(tmp_path / "ViT-L-14.pt")


def broken_files(weights: dict[str, torch.Tensor], folder: Path) -> Iterator[tuple[str, str]]:
    """Files and what is said of them."""
    torch.save(weights, folder / "whole.pt")
    save_file(weights, folder / "whole.safetensors")
    packed = zipfile.ZipFile(folder / "compressed.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(folder / "whole.pt") as source, packed as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    yield "compressed.pt", "compressed archive"
    for ending, said in ((".pt", "cannot be read as tensors alone"), (".safetensors", "no whole safetensors file")):
        data = (folder / f"whole{ending}").read_bytes()
        for label, content in (("cut", data[: len(data) // 2]), ("empty", b""), ("noise", b"noise" * 99)):
            (folder / f"{label}{ending}").write_bytes(content)
            yield f"{label}{ending}", said
    torch.save([torch.zeros(1)], folder / "list.pt")
    yield "list.pt", "holds a list; wanted a state dict"
    torch.save({"epoch": 3}, folder / "number.pt")
    yield "number.pt", "holds 'epoch', a int; wanted tensors by name"
    torch.save({"state_dict": {}}, folder / "nothing.pt")
    yield "nothing.pt", "holds no tensors"
    torch.save({"a": torch.empty(3, device="meta")}, folder / "hollow.pt")
    yield "hollow.pt", "holds 'a', without data; wanted plain tensors"
    (folder / "weights.npz").write_bytes(b"")
    yield "weights.npz", r"weights are read from \.safetensors"


def test_files_that_are_no_checkpoints_are_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    tried = list(broken_files({name: tensor for name, tensor in weights.items() if tensor.ndim < 2}, tmp_path))
    for name, said in tried:
        with pytest.raises(ValueError, match=said):
            read_state(tmp_path / name)
    assert len(tried) == 12


# --- digests and text towers


def test_a_digest_is_of_bytes_wherever_they_lie_and_changes_with_every_part(folder: Path, tmp_path: Path) -> None:
    before = teacher_digest("small", str(folder))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert teacher_digest("small", str(tmp_path)) == before
    found = {before}
    for name, old, new in (
        ("open_clip_config.json", b'"preprocess_cfg": {}', b'"preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}'),
        ("open_clip_config.json", b'"head_width": 32', b'"head_width": 16'),
    ):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(kept.replace(old, new))
        found.add(teacher_digest("small", str(tmp_path)))
        (tmp_path / name).write_bytes(kept)
    whole = (tmp_path / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "open_clip_model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found.add(teacher_digest("small", str(tmp_path)))
    assert len(found) == 4


def a_tokenizer(folder: Path) -> None:
    """tokenizer.json of some words, as the hub has them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", "dog", "rain"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    record = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(record))


def test_a_tokenizer_and_a_text_tower_of_the_hub_come_from_local_files(
    cache: Path, tmp_path: Path, no_network: None
) -> None:
    text = {"hf_model_name": "some/roberta", "hf_tokenizer_name": "some/roberta", "context_length": 16}
    roberta = {
        "model_type": "roberta", "vocab_size": 9, "hidden_size": 32, "num_hidden_layers": 1, "pad_token_id": 0,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 20,
    }  # fmt: skip
    config = {**SMALL, "text_cfg": {**text, "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}}
    place = tmp_path / "model"
    a_tokenizer(place)
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    (place / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"config\.json of some/roberta is missing on this machine"):
        visual_teacher("mine", weights=str(place))
    tower = cached_file(cache, "some/roberta", "config.json", json.dumps(roberta).encode()).parent
    local = {**config, "text_cfg": {**config["text_cfg"], "hf_model_name": str(tower), "hf_model_pretrained": False}}
    local_folder(place, local)
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    ours = openclip_module.load("mine", str(place))
    said = ours.texts(["a photo of a dog", "rain", "a cat"])
    assert said.shape == (3, 48)
    assert cosines(said[:1], said[1:2]) < 0.9999
    assert cosines(ours.texts(["rain"]), said[1:2]) >= 0.999999
    before = teacher_digest("mine", str(place))
    (place / "tokenizer.json").write_text((place / "tokenizer.json").read_text().replace("rain", "snow"))
    assert teacher_digest("mine", str(place)) != before


def test_undrawn_networks_have_the_buffers_that_are_in_no_checkpoint() -> None:
    drawn = open_clip.CLIP(**SMALL)
    with undrawn():
        empty = open_clip.CLIP(**SMALL)
    assert [name for name, _ in empty.named_buffers()] == [name for name, _ in drawn.named_buffers()] == ["attn_mask"]
    assert torch.equal(empty.attn_mask, drawn.attn_mask)
    with undrawn():
        assert torch.equal(torch.nn.init.normal_(torch.zeros(3)), torch.zeros(3))
        assert torch.equal(torch.zeros(3).uniform_(), torch.zeros(3))


def test_a_kept_heap_is_used_again_and_does_not_grow() -> None:
    code = """
import platform, resource
import numpy as np
from avvp_pipe.stages.blocks.memory import keep_heap

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

is_glibc = platform.libc_ver()[0] == "glibc"
assert keep_heap() is is_glibc
for _ in range(3):
    np.ones(8_000_000)
before, peak = faults(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(20):
    np.ones(8_000_000)
assert not is_glibc or faults() - before < 1000, faults() - before
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1.05 * peak
"""
    subprocess.run([sys.executable, "-c", code], check=True)
