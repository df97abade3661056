"""EAR: labels migrate to seconds that are nearly the same; each modality learns beside the other's frozen teacher."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from avvp_pipe.stages.generators import generators_for, label_generator
from avvp_pipe.stages.generators.ear import Across, Combine, asymmetric_loss, migrated_labels, static_logits
from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator, audio_visual_loss
from avvp_pipe.store import Artifact, Store

COMBINE: tuple[Combine, ...] = ("product", "min", "mean", "geometric")
TERMS = ("audio_dynamic", "visual_dynamic", "audio", "visual")
Pair = tuple[Tensor, Tensor]


def beside(*cosines: float) -> Tensor:
    """(1, T, D): the first second, and others at these cosines from it, at right angles but for that."""
    others = [
        [c, *(math.sqrt(1 - c * c) * (place == other) for other in range(len(cosines)))]
        for place, c in enumerate(cosines)
    ]
    return torch.tensor([[[1.0, *[0.0] * len(cosines)], *others]])


def migrated(features: Tensor, labels: Any, *, threshold: float = 0.95, **settings: Any) -> Tensor:
    """Of one clip and one class: (T,)."""
    truth = torch.tensor(labels, dtype=torch.bool)[None, :, None]
    return migrated_labels(features, truth, torch.tensor([len(labels)]), threshold=threshold, **settings)[0, :, 0]


# Label migration.


def test_the_supplements_value_of_1_point_8_from_two_matches_becomes_0_point_9() -> None:
    found = migrated(beside(0.9, 0.9), [0, 1, 1], threshold=0.85)
    torch.testing.assert_close(found, torch.tensor([0.9, 1.0, 1.0]))
    uneven = migrated(beside(0.96, 0.84), [0, 1, 1], threshold=0.8)
    torch.testing.assert_close(uneven[0], torch.tensor(1.8 / 2))


def test_only_similar_seconds_that_have_the_label_are_averaged() -> None:
    # Similar with the label: 0.96. Similar without it: 0.99. With it, but not similar: 0.5.
    torch.testing.assert_close(migrated(beside(0.96, 0.99, 0.5), [0, 1, 0, 1])[0], torch.tensor(0.96))


def test_a_second_without_a_match_gets_nothing_and_no_nan() -> None:
    assert migrated(beside(0.9, 0.5), [0, 1, 1]).tolist() == [0, 1, 1]
    assert migrated(beside(0.99, 0.99), [0, 0, 0]).tolist() == [0, 0, 0]
    assert migrated(torch.zeros(1, 3, 4), [0, 1, 0]).tolist() == [0, 1, 0]


def test_original_labels_stay_1_although_their_matches_average_less() -> None:
    assert migrated(beside(0.96, 0.97), [1, 1, 1]).tolist() == [1, 1, 1]


def test_a_tie_at_the_threshold_counts_only_when_it_is_not_strict() -> None:
    halves = torch.tensor([[[1.0, 1, 1, 1], [1.0, 0, 0, 0]]])  # a cosine of exactly one half
    assert migrated(halves, [0, 1], threshold=0.5).tolist() == [0, 1]
    assert migrated(halves, [0, 1], threshold=0.5, strict=False).tolist() == [0.5, 1]


def test_classes_migrate_by_themselves() -> None:
    labels = torch.tensor([[[0, 0], [1, 0], [0, 1]]]).bool()
    found = migrated_labels(beside(0.96, 0.98), labels, torch.tensor([3]), threshold=0.95)
    torch.testing.assert_close(found[0, 0], torch.tensor([0.96, 0.98]))


def test_padding_neither_gives_nor_takes_labels_whatever_it_holds() -> None:
    features, lengths = torch.cat((beside(0.96), beside(0.96))), torch.tensor([2, 1])
    labels = torch.tensor([[[0], [1]], [[0], [1]]]).bool()
    found = migrated_labels(features, labels, lengths, threshold=0.95)
    torch.testing.assert_close(found[..., 0], torch.tensor([[0.96, 1], [0, 0]]))
    features[1, 1] = float("nan")
    for across in ("video", "batch"):
        again = migrated_labels(features, labels, lengths, threshold=0.95, across=across)
        assert again.isfinite().all()
        assert not again[1, 1].any()


def test_labels_cross_from_video_to_video_only_when_asked() -> None:
    features = torch.cat((beside(0.96), beside(0.96)))
    labels = torch.tensor([[[0], [1]], [[0], [0]]]).bool()
    apart, together = (
        migrated_labels(features, labels, torch.tensor([2, 2]), threshold=0.95, across=across)[..., 0]
        for across in ("video", "batch")
    )
    torch.testing.assert_close(apart, torch.tensor([[0.96, 1], [0, 0]]))
    torch.testing.assert_close(together, torch.tensor([[0.96, 1], [0.96, 1]]))


def test_labels_are_float32_in_0_to_1_though_cosines_round_above_1() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(1, 1, 7, generator=draw).expand(1, 500, 7) * torch.rand(1, 500, 1, generator=draw)
    unit = functional.normalize(features, dim=2)
    assert (unit @ unit.mT).max() > 1
    labels = torch.zeros(1, 500, 1)
    labels[0, 0] = 1
    found = migrated_labels(features, labels, torch.tensor([500]), threshold=0.98)
    assert found.dtype == torch.float32
    assert 0.999 < found.min() <= found.max() <= 1


def test_half_precision_around_it_does_not_move_a_label() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(4, 1, 32, generator=draw) + 0.15 * torch.randn(4, 9, 32, generator=draw)
    labels, lengths = torch.rand(4, 9, 2, generator=draw) > 0.5, torch.full((4,), 9)
    plain = migrated_labels(features, labels, lengths, threshold=0.98)
    assert ((plain > 0) & (plain < 1)).any()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(migrated_labels(features, labels, lengths, threshold=0.98), plain)


def test_no_gradient_reaches_features() -> None:
    assert not migrated(beside(0.96).requires_grad_(), [0, 1]).requires_grad


def reference_migration(
    features: Tensor, labels: Tensor, lengths: Tensor, threshold: float, *, strict: bool, across: str
) -> tuple[Tensor, float]:
    """One label at a time; also how near a cosine came to the threshold."""
    found, nearest = torch.zeros(labels.shape), 1.0
    seconds = [(clip, second) for clip, length in enumerate(lengths.tolist()) for second in range(length)]
    for clip, second in seconds:
        for index in range(labels.shape[2]):
            matches = []
            for other, moment in seconds:
                if across == "video" and other != clip:
                    continue
                first, second_one = features[clip, second].double(), features[other, moment].double()
                cosine = float(first @ second_one / (first.norm() * second_one.norm()))
                nearest = min(nearest, abs(cosine - threshold))
                if (cosine > threshold if strict else cosine >= threshold) and labels[other, moment, index]:
                    matches.append(cosine)
            mean = sum(matches) / len(matches) if matches else 0.0
            found[clip, second, index] = 1.0 if labels[clip, second, index] else mean
    return found, nearest


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    threshold=st.floats(-0.5, 0.99),
    strict=st.booleans(),
    across=st.sampled_from(["video", "batch"]),
)
def test_migration_is_what_loops_over_pairs_of_seconds_say(
    seed: int, lengths: list[int], threshold: float, strict: bool, across: Across
) -> None:
    draw, long = torch.Generator().manual_seed(seed), torch.tensor(lengths)
    shape = (len(lengths), max(lengths) + 1)
    scenes = torch.randn(2, 6, generator=draw)[torch.randint(2, shape, generator=draw)]
    features = scenes + 0.3 * torch.randn(*shape, 6, generator=draw)
    labels = torch.rand(*shape, 3, generator=draw) > 0.6
    expected, nearest = reference_migration(features, labels, long, threshold, strict=strict, across=across)
    assume(nearest > 1e-5)
    found = migrated_labels(features, labels, long, threshold=threshold, strict=strict, across=across)
    torch.testing.assert_close(found, expected.clamp(min=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"across": "dataset"}, "no across 'dataset'; there are video, batch"),
        ({"threshold": 1.5}, r"a cosine in \[-1, 1\].* threshold = 1.5"),
        ({"labels": torch.zeros(1, 4, 1)}, r"tuple\(labels.shape\) = \(1, 4, 1\)"),
        ({"lengths": torch.tensor([3, 3])}, r"tuple\(lengths.shape\) = \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(wrong: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {"labels": torch.zeros(1, 3, 1), "lengths": torch.tensor([3]), "threshold": 0.95}
    with pytest.raises(ValueError, match=message):
        migrated_labels(beside(0.9, 0.9), **(right | wrong))


# The static teachers.


def test_static_logits_are_scaled_cosines_of_each_second_without_gradient() -> None:
    features = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]], requires_grad=True)
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.6, 0.8]], requires_grad=True)
    found = static_logits(features, text, 4.6052)
    torch.testing.assert_close(found, 4.6052 * torch.tensor([[[0.6, 0.8, 0.28], [0, 1, 0.8]]]))
    assert not found.requires_grad
    torch.testing.assert_close(static_logits(features, text, torch.tensor(2.0).exp()), found * math.exp(2) / 4.6052)


# The loss.


def drawn(*lengths: int, classes: int = 4, seed: int = 0) -> dict[str, Any]:
    """Logits, labels and migrated labels of clips; class 3 occurs in padding at most."""
    draw = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths), classes)
    pair = [tuple(3 * torch.randn(*shape, generator=draw) for _ in range(2)) for _ in range(2)]
    labels = torch.rand(*shape, generator=draw) > 0.7
    labels[..., 3] = False
    padding = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    labels[padding] = True
    soft = tuple(
        torch.maximum(labels.float(), torch.rand(*shape, generator=draw) * labels.roll(1, 1)) for _ in range(2)
    )
    return {
        "dynamic": pair[0],
        "static": pair[1],
        "labels": labels,
        "migrated": soft,
        "lengths": torch.tensor(lengths),
    }


def both_of(first: float, second: float, combine: str) -> float:
    """Of two probabilities."""
    return {
        "product": first * second,
        "min": min(first, second),
        "mean": (first + second) / 2,
        "geometric": math.sqrt(first * second),
    }[combine]


def reference_loss(clips: dict[str, Any], combine: str, **weights: float) -> dict[str, float]:
    """One cell at a time, probabilities first."""
    found: dict[str, list[float]] = {term: [] for term in TERMS}
    (audio, visual), (heard, seen) = (
        tuple(each.detach().double().sigmoid().numpy() for each in clips[name]) for name in ("dynamic", "static")
    )
    for clip, length in enumerate(clips["lengths"].tolist()):
        for second in range(length):
            for index in range(clips["labels"].shape[2]):
                cell = (clip, second, index)

                def entropy(p: float, target: Tensor, weight: float, cell: Any = cell, length: int = length) -> float:
                    share, (clip, _, index) = float(target[cell]), cell
                    occurs = bool((target[clip, :length, index] > 0).any())
                    plain = -share * math.log(p) - (1 - share) * math.log(1 - p)
                    return (weight if occurs else 1.0) * plain

                labels, (to_hear, to_see) = clips["labels"], clips["migrated"]
                both = both_of(audio[cell], seen[cell], combine), both_of(visual[cell], heard[cell], combine)
                found["audio_dynamic"].append(entropy(both[0], labels, weights["present_weight"]))
                found["visual_dynamic"].append(entropy(both[1], labels, weights["present_weight"]))
                for term, p, target in (("audio", audio[cell], to_hear), ("visual", visual[cell], to_see)):
                    own = weights[f"{term}_weight"] * entropy(p, target, weights["unimodal_present_weight"])
                    found[term].append(own)
    return {term: sum(cells) / len(cells) for term, cells in found.items()}


@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize(("present", "unimodal"), [(5.0, 1.0), (1.0, 3.0)])
def test_terms_are_weighted_means_over_real_seconds_and_ignore_padding(
    combine: Combine, present: float, unimodal: float
) -> None:
    clips = drawn(6, 2, 4)
    weights: dict[str, Any] = {
        "audio_weight": 0.3,
        "visual_weight": 0.7,
        "present_weight": present,
        "unimodal_present_weight": unimodal,
    }
    expected = reference_loss(clips, combine, **weights)
    for name in ("dynamic", "static", "migrated"):
        for each in clips[name]:
            each[1, 2:] = float("nan")
    for each in clips["dynamic"]:
        each.requires_grad_()
    found = asymmetric_loss(**clips, combine=combine, **weights)
    assert {term: value.item() for term, value in found.items()} == pytest.approx(expected, rel=1e-5)
    torch.autograd.backward(torch.stack(list(found.values())).sum())
    for each in clips["dynamic"]:
        assert each.grad.isfinite().all()
        assert not each.grad[1, 2:].any()
        assert each.grad[1, :2].all()


def test_terms_of_a_single_cell_are_what_one_computes_by_hand() -> None:
    zero, odds = torch.zeros(1, 1, 1), torch.full((1, 1, 1), math.log(4))  # probabilities 0.5 and 0.8
    terms = asymmetric_loss(
        (zero, odds), (odds, zero), torch.tensor([[[True]]]), (torch.ones(1, 1, 1), zero + 0.9), torch.tensor([1])
    )
    assert {term: value.item() for term, value in terms.items()} == pytest.approx(
        {
            "audio_dynamic": -5 * math.log(0.5 * 0.5),
            "visual_dynamic": -5 * math.log(0.8 * 0.8),
            "audio": -0.05 * math.log(0.5),
            "visual": -0.15 * (0.9 * math.log(0.8) + 0.1 * math.log(0.2)),
        }
    )


def test_the_product_is_uwavs_loss_of_one_branch_and_the_others_teacher() -> None:
    clips = drawn(5, 3)
    (audio, visual), (heard, seen) = clips["dynamic"], clips["static"]
    terms = asymmetric_loss(**clips)
    for term, pair in (("audio_dynamic", (audio, seen)), ("visual_dynamic", (visual, heard))):
        torch.testing.assert_close(terms[term], audio_visual_loss(*pair, clips["labels"], clips["lengths"]))


@pytest.mark.parametrize("combine", COMBINE)
def test_each_term_reaches_one_modality_of_the_network_and_nothing_else(combine: Combine) -> None:
    torch.manual_seed(0)
    model = TemporalGenerator(
        Network(width=8, heads=2, ffn=12, layers=2, dropout=0.0, audio_width=6, visual_width=8, identical_layers=False)
    )
    draw = torch.Generator().manual_seed(1)
    audio, visual, text_audio, text_visual = (
        functional.normalize(torch.randn(*shape, generator=draw), dim=-1).requires_grad_()
        for shape in ((2, 5, 6), (2, 5, 8), (3, 6), (3, 8))
    )
    lengths, labels = torch.tensor([5, 3]), torch.rand(2, 5, 3, generator=draw) > 0.5
    for term in TERMS:
        model.zero_grad()
        for each in (audio, visual, text_audio, text_visual):
            each.grad = None
        dynamic = model(audio, visual, text_audio, text_visual, lengths)
        static = (static_logits(audio, text_audio, 3.3), static_logits(visual, text_visual, 4.6))
        soft = tuple(migrated_labels(each, labels, lengths, threshold=0.5) for each in (audio, visual))
        terms = asymmetric_loss(dynamic, static, labels, (soft[0], soft[1]), lengths, combine=combine)
        torch.autograd.backward(terms[term])
        own, other = (model.audio, model.visual) if term.startswith("audio") else (model.visual, model.audio)
        reached, spared = ((audio, visual), (visual, audio))[not term.startswith("audio")]
        assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in own.parameters()), term
        assert all(each.grad is None for each in other.parameters()), term
        assert reached.grad is not None
        assert spared.grad is None


def test_static_logits_get_no_gradient_even_if_they_could() -> None:
    clips = drawn(3)
    for each in (*clips["dynamic"], *clips["static"]):
        each.requires_grad_()
    torch.autograd.backward(torch.stack(list(asymmetric_loss(**clips).values())).sum())
    assert all(each.grad is None for each in clips["static"])
    assert all(each.grad is not None for each in clips["dynamic"])


@pytest.mark.parametrize(
    ("combine", "on", "off"),
    [("product", 400, 200 - math.log(2)), ("min", 200, 200), ("mean", 200, 200), ("geometric", 200, 200)],
)
def test_terms_and_gradients_stay_finite_where_probabilities_saturate(combine: Combine, on: float, off: float) -> None:
    # A label that is on although both probabilities round to 0, and one that is off although both round to 1.
    far = torch.tensor([[[-200.0, 200.0]]])
    dynamic = (far.clone().requires_grad_(), far.clone().requires_grad_())
    labels = torch.tensor([[[1, 0]]])
    soft = labels.float()
    terms = asymmetric_loss(
        dynamic, (far, far), labels, (soft, soft), torch.tensor([1]), present_weight=1.0, combine=combine
    )
    expected = {"audio_dynamic": (on + off) / 2, "visual_dynamic": (on + off) / 2, "audio": 10.0, "visual": 30.0}
    assert {term: value.item() for term, value in terms.items()} == pytest.approx(expected)
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    for each in dynamic:
        assert each.grad is not None
        assert each.grad.isfinite().all()
        assert each.grad[0, 0, 0] < 0 < each.grad[0, 0, 1]


def test_weights_multiply_the_uni_modal_terms_alone() -> None:
    clips = drawn(4, 2)
    plain = asymmetric_loss(**clips, audio_weight=1.0, visual_weight=1.0)
    weighed = asymmetric_loss(**clips)
    for term, weight in zip(TERMS, (1.0, 1.0, 0.05, 0.15), strict=True):
        torch.testing.assert_close(weighed[term], weight * plain[term])


def test_bfloat16_logits_give_a_float32_loss() -> None:
    clips = drawn(4, 2)
    halved = clips | {"dynamic": tuple(each.bfloat16() for each in clips["dynamic"])}
    for term, value in asymmetric_loss(**halved).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, asymmetric_loss(**clips)[term], rtol=0.02, atol=0)


def test_another_way_to_combine_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no combine 'max'; there are product, min, mean, geometric"):
        asymmetric_loss(**drawn(2), combine="max")  # type: ignore[arg-type]


# The labels.


def test_ear_runs_a_generator_that_was_pre_trained_as_ear_says(
    tmp_path: Path, make_artifact: Callable[..., Artifact]
) -> None:
    method, store = label_generator("ear"), Store(tmp_path)
    right = make_artifact(store, "generator/ear", method="ear", arrays={"weights/x": np.zeros(1, np.float32)})
    wrong = make_artifact(store, "generator/uwav", method="uwav", params={"other": 1})
    assert generators_for(method, {"generator": right}) == {"generator": right}
    with pytest.raises(ValueError, match=r"generator/uwav.*pre-trained as uwav.*pretrain --method ear"):
        generators_for(method, {"generator": wrong})
    with pytest.raises(ValueError, match=r"ear runs one generator; make it with .avvp-pipe pretrain --method ear"):
        generators_for(method, {})
