"""What makes pre-training fast: clips without their padding, batches of similar length, dropout that draws little."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avvp_pipe.stages.blocks.attention import Attention, EncoderLayer, attention_mask, valid_mask
from avvp_pipe.stages.blocks.batching import batches_of, length_batches, random_batches
from avvp_pipe.stages.blocks.device import autocast, fast_precision
from avvp_pipe.stages.blocks.dropout import Dropout, dropout
from avvp_pipe.stages.blocks.packing import pack, packing_of
from avvp_pipe.stages.blocks.training import Optimiser, Schedule, fit, seeded

# --- packing


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_packed_seconds_are_the_real_ones_in_order_and_spread_back_to_their_places(lengths: list[int]) -> None:
    padded = torch.arange(len(lengths) * 5 * 2, dtype=torch.float32).view(len(lengths), 5, 2) + 1
    packing = packing_of(valid_mask(torch.tensor(lengths), 5))
    real = [padded[clip, second] for clip, length in enumerate(lengths) for second in range(length)]
    if packing is None:
        assert set(lengths) == {5}
        assert pack(padded, None) is padded
        return
    packed = packing.pack(padded)
    assert torch.equal(packed, torch.stack(real) if real else torch.zeros(0, 2))
    spread = packing.spread(packed)
    for clip, length in enumerate(lengths):
        assert torch.equal(spread[clip, :length], padded[clip, :length])
        assert not spread[clip, length:].any()


@pytest.mark.parametrize("attend", ["video", "segment"])
def test_a_layer_gives_real_seconds_the_same_packed_as_padded_and_the_same_gradient(attend: str) -> None:
    torch.manual_seed(0)
    layer, valid = EncoderLayer(8, 2, 12, dropout=0.0), valid_mask(torch.tensor([5, 2, 0, 4]), 5)
    mask, packing = attention_mask(valid, attend=attend), packing_of(valid)  # type: ignore[arg-type]
    stream, wanted = torch.randn(4, 5, 8), torch.randn(11, 8)
    assert packing is not None
    found: list[tuple[Tensor, list[Tensor]]] = []
    for out in (layer(stream, mask)[valid], layer(packing.pack(stream), mask, packing)):
        layer.zero_grad()
        torch.autograd.backward((out * wanted).sum())
        found.append((out, [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


# --- attention with dropout


def test_attention_over_itself_is_attention_to_its_own_stream_with_and_without_a_mask() -> None:
    torch.manual_seed(0)
    for share, training in ((0.0, True), (0.4, False), (1e-9, True)):  # the last takes the way that dropout takes
        attention = Attention(8, 2, share).train(training)
        stream, valid = torch.randn(3, 6, 8), valid_mask(torch.tensor([6, 1, 4]), 6)
        for mask in (None, attention_mask(valid)):
            expected = Attention.forward(attention.eval(), stream, stream, mask)
            found = attention.train(training).over_itself(stream, mask)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_dropped_attention_weights_leave_the_mean_where_it_was() -> None:
    torch.manual_seed(0)
    attention, stream = Attention(4, 2, 0.5).train(), torch.randn(1, 4, 4)
    with torch.no_grad():
        mean = attention.over_itself(stream.expand(20_000, -1, -1)).mean(dim=0)
        torch.testing.assert_close(mean, attention.eval().over_itself(stream)[0], rtol=0, atol=0.02)
        assert (attention.train().over_itself(stream) - mean).abs().max() > 0.05


# --- dropout


@given(st.sampled_from([torch.float32, torch.bfloat16]), st.floats(0, 0.9), st.integers(1, 7))
def test_dropout_keeps_values_scaled_or_drops_them(dtype: torch.dtype, share: float, count: int) -> None:
    values = torch.arange(1, count + 1, dtype=dtype)
    with seeded(count):
        found = dropout(values, share)
    assert found.dtype == dtype
    kept = found != 0
    torch.testing.assert_close(found[kept], (values / (1 - share))[kept], rtol=1e-2, atol=0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_the_share_it_is_told_each_value_by_itself(share: float) -> None:
    with seeded(1):
        first, second = (dropout(torch.ones(1000, 1000), share) == 0 for _ in range(2))
    deviation = (share * (1 - share) / 1e6) ** 0.5
    assert first.float().mean().item() == pytest.approx(share, abs=5 * deviation)
    # Neighbours come out of one drawn number, and calls follow one another: both are independent.
    for other in (second, first.roll(1), first.roll(4), first.roll(1, dims=0)):
        assert (first & other).float().mean().item() == pytest.approx(share**2, abs=10 * deviation)


def test_dropouts_gradient_goes_where_values_went_and_the_seed_decides() -> None:
    values = torch.randn(5, 7, requires_grad=True)
    with seeded(3):
        found = dropout(values, 0.4)
    for in_place in (False, True):
        with seeded(3):
            assert torch.equal(dropout(values.detach().clone(), 0.4, in_place=in_place), found)
    with seeded(4):
        assert not torch.equal(dropout(values, 0.4), found)
    torch.autograd.backward(found.sum())
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.where(found != 0, 1 / 0.6, 0.0), rtol=1e-4, atol=0)


def test_dropout_rests_outside_training_and_where_its_share_is_nothing() -> None:
    values = torch.randn(100)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0).train()(values) is values
    kept = values.clone()
    assert Dropout(0.5).train()(values) is values  # overwritten
    assert not torch.equal(values, kept)


def test_views_of_other_memory_order_are_dropped_from_like_any_other() -> None:
    values = torch.ones(6, 4).T
    with seeded(0):
        found = dropout(values, 0.5)
    with seeded(0):
        assert torch.equal(found, dropout(torch.ones(4, 6), 0.5))


# --- batches


@given(st.lists(st.integers(1, 60), min_size=1, max_size=70), st.integers(1, 9), st.integers(1, 3), st.integers(0, 9))
def test_batches_hold_every_clip_once_and_are_full_but_for_one_a_pool(
    lengths: list[int], size: int, pool: int, seed: int
) -> None:
    with seeded(seed):
        by_length = length_batches(torch.tensor(lengths), size, pool=pool)
        drawn = random_batches(len(lengths), size)
    for batches in (by_length, drawn):
        assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
        assert sum(len(batch) != size for batch in batches) <= 1
    for batch in by_length:
        assert lengths_of(batch, lengths) == sorted(lengths_of(batch, lengths))


def lengths_of(batch: Tensor, lengths: list[int]) -> list[int]:
    return [lengths[row] for row in batch.tolist()]


def test_batches_by_length_have_little_padding_and_come_in_random_order() -> None:
    lengths = torch.tensor(np.random.default_rng(0).integers(10, 61, 1500))

    def padded(batches: list[Tensor]) -> float:
        return sum(len(batch) * int(lengths[batch].max()) for batch in batches) / int(lengths.sum())

    with seeded(0):
        first, second, drawn = length_batches(lengths, 64), length_batches(lengths, 64), random_batches(1500, 64)
    assert padded(first) < 1.1 < 1.5 < padded(drawn)
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]
    longest = [int(lengths[batch].max()) for batch in first]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_clips_of_one_length_are_batched_at_random_either_way() -> None:
    with seeded(5):
        (first, *_) = length_batches(torch.full((300,), 10), 16)
    assert first.tolist() != sorted(first.tolist())


def test_training_goes_through_the_batches_it_is_given_each_epoch_anew() -> None:
    seen: list[list[int]] = []
    model, lengths = torch.nn.Linear(1, 1), torch.tensor([3, 9, 4, 8, 1])

    def loss(rows: Tensor) -> dict[str, Tensor]:
        seen.append(rows.tolist())
        return {"some": model(torch.ones(1, 1)).sum()}

    schedule = Schedule(epochs=2, warmup=0)
    drawn = batches_of("length", lengths, 2)
    fit(model, loss, clips=5, batch_size=2, batches=drawn, schedule=schedule, optimiser=Optimiser(), seed=0)
    expected = []
    for epoch in (1, 2):
        with seeded(0, epoch):
            expected += [batch.tolist() for batch in drawn()]
    assert seen == expected
    with pytest.raises(ValueError, match="no batching 'size'; there are random, length"):
        batches_of("size", lengths, 2)  # type: ignore[arg-type]


def test_one_pass_over_the_weights_ends_close_to_one_pass_for_each_operation() -> None:
    ends = []
    for fused in (False, True):
        with seeded(0):
            model, inputs = torch.nn.Linear(4, 3), torch.randn(8, 4)
        optimiser = Optimiser(weight_decay=1e-2, betas=(0.5, 0.999), clip_norm=2.0, fused=fused)
        fitted = fit(
            model,
            lambda rows, model=model, inputs=inputs: {"square": model(inputs[rows]).square().mean()},  # type: ignore[misc]
            clips=8, batch_size=2, schedule=Schedule(epochs=4, warmup=1, peak=0.1, minimum=0.1), optimiser=optimiser,
            seed=0,
        )  # fmt: skip
        ends.append(fitted.last["weight"])
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-6)


# --- precision


def test_inside_bf16_products_are_rounded_and_inside_fp32_they_are_not() -> None:
    left, right = torch.randn(3, 4), torch.randn(4, 5)
    with autocast(torch.device("cpu"), "fp32"):
        assert torch.equal(left @ right, torch.mm(left, right))
        assert (left @ right).dtype == torch.float32
    with autocast(torch.device("cpu"), "bf16"):
        assert (left @ right).dtype == torch.bfloat16
    assert fast_precision("cpu") in ("fp32", "bf16")
