"""Pruning rules as properties: whatever the weights, these hold."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m2kd_lite.errors import LayerExhausted
from m2kd_lite.method import masks

ratios = st.floats(0.05, 0.95)
# Few distinct magnitudes, so that ties (and zeros, common after a prune) are the rule.
weights = st.lists(st.integers(-3, 3), min_size=1, max_size=60).map(lambda v: torch.tensor(v, dtype=torch.float32))


def owners_for(weight, data):
    owners = data.draw(st.lists(st.integers(0, 3), min_size=len(weight), max_size=len(weight)))
    return torch.tensor(owners, dtype=torch.uint8)


@given(weights, ratios, st.data())
@settings(max_examples=150, deadline=None)
def test_prune_keeps_exactly_the_asked_count_of_the_largest_free_weights(weight, ratio, data):
    owners = owners_for(weight, data)
    free = (owners == 0).nonzero().squeeze(1).tolist()
    if not free:
        return
    before = weight.clone()
    new = masks.prune({"w": weight}, {"w": owners}, step=4, ratio=ratio)["w"]
    # literal: sort positions by falling magnitude, earlier position first among equals
    expected = sorted(free, key=lambda p: (-abs(before[p].item()), p))[:masks.kept_count(len(free), ratio)]
    assert sorted((new == 4).nonzero().squeeze(1).tolist()) == sorted(expected)
    # what earlier steps own is neither taken nor changed; what is given back is zero and free
    assert torch.equal(new[owners > 0], owners[owners > 0])
    assert torch.equal(weight[new > 0], before[new > 0])
    assert (weight[new == 0] == 0).all()


@given(st.integers(1, 10_000), ratios)
def test_kept_count_is_the_rounded_share_and_never_nothing(free, ratio):
    kept = masks.kept_count(free, ratio)
    assert 1 <= kept <= free
    assert abs(kept - (1 - ratio) * free) <= 0.5 or kept == 1


@given(weights, ratios, st.integers(2, 5))
@settings(max_examples=80, deadline=None)
def test_steps_own_disjoint_weights_and_active_ones_only_grow(weight, ratio, steps):
    owners = {"w": torch.zeros_like(weight, dtype=torch.uint8)}
    seen = torch.zeros_like(weight, dtype=torch.bool)
    for step in range(1, steps + 1):
        if not masks.free(owners["w"]).any():
            with pytest.raises(LayerExhausted):
                masks.prune({"w": weight}, owners, step, ratio)
            return
        owners = masks.prune({"w": weight}, owners, step, ratio)
        now = masks.active(owners["w"], step)
        assert (now | ~seen).all() and now.sum() > seen.sum()       # seen is a proper subset of now
        seen = now


def test_active_leaves_out_free_weights():
    owners = torch.tensor([0, 1, 2, 3], dtype=torch.uint8)
    assert masks.active(owners, 2).tolist() == [False, True, True, False]
    assert masks.free(owners).tolist() == [True, False, False, False]


def test_remaining_capacity_is_the_ratio_to_the_power_of_steps_gone():
    weight = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    owners = {"w": torch.zeros(10_000, dtype=torch.uint8)}
    for step in range(1, 6):
        owners = masks.prune({"w": weight.normal_()}, owners, step, 0.75)
        assert masks.free(owners["w"]).float().mean().item() == pytest.approx(0.75**step, abs=1e-3)


def test_an_exhausted_layer_is_named_and_nothing_is_changed():
    weights = {"good.weight": torch.ones(4), "stem.weight": torch.ones(2)}
    owners = {"good.weight": torch.zeros(4, dtype=torch.uint8), "stem.weight": torch.ones(2, dtype=torch.uint8)}
    with pytest.raises(LayerExhausted, match="stem.weight has no free weight left for step 2"):
        masks.prune(weights, owners, 2, 0.75)
    assert torch.equal(weights["good.weight"], torch.ones(4))


@given(st.integers(1, 500), ratios, st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_what_is_said_to_last_lasts_and_what_is_not_does_not(size, ratio, steps):
    weight, owners = torch.randn(size), {"w": torch.zeros(size, dtype=torch.uint8)}
    try:
        for step in range(1, steps + 1):
            owners = masks.prune({"w": weight.normal_()}, owners, step, ratio)
    except LayerExhausted:
        with pytest.raises(LayerExhausted, match=f"w has no free weight left for step {step}: .* last for {step - 1} of {steps} steps"):
            masks.check_lasting({"w": size}, steps, ratio)
    else:
        masks.check_lasting({"w": size}, steps, ratio)


def test_the_stem_of_resnet_32_lasts_twenty_steps_at_the_papers_ratio():
    weight, owners = torch.randn(16, 3, 3, 3), {"w": torch.zeros(16, 3, 3, 3, dtype=torch.uint8)}
    free = []
    for step in range(1, 21):
        free.append(int(masks.free(owners["w"]).sum()))
        owners = masks.prune({"w": weight.normal_()}, owners, step, 0.75)
    assert free[0] == 432 and free[9] == 32 and free[19] >= 1


def test_prune_works_on_channels_last_weights():
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    last = weight.clone().to(memory_format=torch.channels_last)
    empty = {"w": torch.zeros(8, 4, 3, 3, dtype=torch.uint8)}
    a = masks.prune({"w": weight}, empty, 1, 0.7)["w"]
    b = masks.prune({"w": last}, masks.new_masks({"w": last}), 1, 0.7)["w"]
    assert torch.equal(a, b) and torch.equal(weight, last)
