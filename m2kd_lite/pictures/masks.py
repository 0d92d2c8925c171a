"""Figures of the lesson on pruning: who owns each weight, what is still free, and the bytes that remembering takes.

The same rules as in `plots.py`, whose helper and colours these use: each returns a `Figure` with a text alternative.
Called by the notebook on Eq. 5-8 (section 3.3).
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from m2kd_lite.method.masks import active, free
from m2kd_lite.pictures.plots import COLOURS, COMPONENTS, HATCHES, MARKS, new_figure

FREE = "#BBBBBB"
FADED = 0.22                # how much of its colour an inactive weight keeps


def one_layer(stages: Sequence[tuple[str, Tensor, Tensor]], title: str) -> Figure:
    """Bars: the weights of one small layer at each stage of pruning, one row a stage; the ticks are the mask.

    Parameters
    ----------
    stages : caption, weights (n,) float32, and owners (n,) uint8, 0 where free.
    """
    told = "; ".join(f"{caption}: {_counts(owners)}, {int((weights == 0).sum())} of them zero"
                     for caption, weights, owners in stages)
    figure, _ = new_figure(f"Bars of the weights of one layer, a row for each stage, with the owner's number below each bar. "
                           f"{told}.", width=5.6, height=0.5 + 1.3 * len(stages), columns=0)
    axes = figure.subplots(len(stages), 1)
    highest = 1.1 * max(float(weights.abs().max()) for _, weights, _ in stages)
    for axis, (caption, weights, owners) in zip(axes, stages, strict=True):
        places = np.arange(len(weights))
        for owner in sorted(set(owners.tolist())):
            own = owners.numpy() == owner
            axis.bar(places[own], weights.numpy()[own], 0.8, color=_colour(owner), edgecolor="black", linewidth=0.6,
                     hatch=HATCHES[owner % 5])
        axis.axhline(0, color="black", lw=0.8)
        axis.set(ylim=(-highest, highest), yticks=[], xticks=places, xlim=(-0.7, len(places) - 0.3))
        axis.set_xticklabels([str(owner) for owner in owners.tolist()])
        axis.tick_params(length=0, labelsize=10)
        axis.spines[:].set_visible(False)
        axis.set_title(caption, loc="left", fontsize=11)
    axes[-1].set_xlabel("mask M: the step that owns the weight, 0 while it is free", fontsize=11)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def owners_by_model(mask: Tensor, steps: Sequence[int], title: str) -> Figure:
    """One layer's mask, once for each model: coloured by owner, faded where that model does not use the weight.

    Parameters
    ----------
    mask : (out, in, height, width) uint8; a filter is a row.
    steps : the models to draw.
    """
    owners = mask.reshape(len(mask), -1)
    shares = {step: 100 * float(active(owners, step).float().mean()) for step in steps}
    told = ", ".join(f"model {step} uses {share:.0f} %" for step, share in shares.items())
    across = min(3, len(steps) + 1)
    down = -(-(len(steps) + 1) // across)
    rows, columns = owners.shape
    figure, _ = new_figure(f"Grids of one layer's {owners.numel():,} weights, a row a filter, coloured by the step that owns each; "
                           f"full colour where the model uses the weight, faded where it belongs to a later step, white where "
                           f"it is free. {told}; {100 * float(free(owners).float().mean()):.0f} % are free in the end.",
                           width=2.3 * across, height=0.4 + down * (0.35 + 2.2 * min(1.2, max(0.5, rows / columns))),
                           columns=0)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    named = sorted(set(owners.unique().tolist()) - {0})
    for axis, step in zip(axes, steps, strict=False):
        picture = np.ones((*owners.shape, 3))
        for owner in named:
            depth = 1.0 if owner <= step else FADED
            picture[owners.numpy() == owner] = 1 - depth * (1 - np.array(to_rgb(_colour(owner))))
        axis.imshow(picture, aspect="auto", interpolation="nearest")
        axis.set_title(f"model {step}: {shares[step]:.0f} % active", loc="left", fontsize=11)
        axis.set(xticks=[], yticks=[])
    for axis in axes[len(steps):]:
        axis.set_axis_off()
    axes[len(steps)].legend(handles=[Patch(facecolor=_colour(owner), edgecolor="black", label=f"step {owner} owns it")
                                     for owner in named]
                            + [Patch(facecolor=_faded(named[-1]), edgecolor="black", label="faded: not in this model"),
                               Patch(facecolor="white", edgecolor="black", label="free")],
                            loc="center left", frameon=False, fontsize=11)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _faded(owner: int) -> tuple[float, float, float]:
    red, green, blue = (1 - FADED * (1 - level) for level in to_rgb(_colour(owner)))
    return red, green, blue


def capacity(shares: Sequence[float], ratio: float, title: str) -> Figure:
    """What is free when each step begins: the masks beside the law r^(k-1).

    Parameters
    ----------
    shares : free weights over all weights when steps 1, 2, ... begin.
    ratio : the pruning ratio r.
    """
    steps = np.arange(1, len(shares) + 1)
    told = ", ".join(f"step {step} {100 * share:.1f} %" for step, share in zip(steps, shares, strict=True))
    figure, axis = new_figure(f"Falling curve of the share of free weights when a step begins, with the masks' counts lying on "
                              f"{ratio:g} to the power of k minus 1: {told}.", width=5.6, height=3.6)
    axis.plot(steps, 100 * ratio ** (steps - 1.0), color=COLOURS[0], lw=2, label=f"the law, {ratio:g}$^{{k-1}}$")
    axis.plot(steps, 100 * np.array(shares), color=COLOURS[1], linestyle="", marker=MARKS[1], ms=9, mfc="none", mew=2,
              label="counted in the masks")
    axis.set_ylim(0, 105)
    axis.set_xlabel("incremental step k", fontsize=11)
    axis.set_ylabel("free when step k begins (%)", fontsize=11)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(title, loc="left", fontsize=12)
    axis.legend(frameon=False, fontsize=11)
    return figure


def added_bytes(per_step: Sequence[Mapping[str, int]], others: Mapping[str, float], title: str) -> Figure:
    """What each step after the first adds, by component; beside it the sum and what others report for the same.

    Parameters
    ----------
    per_step : the ledger after steps 1, 2, ... (`snapshots.ledger`).
    others : name to bytes.
    """
    used = [part for part in COMPONENTS if per_step[-1][part] > per_step[0][part]]
    added = {part: np.diff([entry[part] for entry in per_step]) / 1e3 for part in used}
    sums = {part: float(values.sum()) for part, values in added.items()}
    told = ", ".join(f"{_plain(part)} {value:,.0f} kB" for part, value in sums.items())
    beside = ", ".join(f"{' '.join(name.split())} {value / 1e3:,.0f} kB" for name, value in others.items())
    figure, (left, right) = new_figure(
        f"Stacked bars of the bytes that each step adds, from step 2 to step {len(per_step)}. Added in all: {told}; "
        f"together {sum(sums.values()):,.0f} kB. Beside it: {beside}.", width=7.2, height=4.0, columns=2)
    steps = np.arange(2, len(per_step) + 1)
    bottom, below = np.zeros(len(steps)), 0.0
    for part in used:
        i = COMPONENTS.index(part)
        style = dict(color=COLOURS[i], hatch=HATCHES[i], edgecolor="white", linewidth=0.5)
        left.bar(steps, added[part], bottom=bottom, label=_plain(part), width=0.7, **style)
        right.bar(0, sums[part], bottom=below, width=0.6, **style)
        bottom, below = bottom + added[part], below + sums[part]
    right.bar(range(1, len(others) + 1), [value / 1e3 for value in others.values()], width=0.6, color="white",
              edgecolor="black", hatch="--")
    for place, value in enumerate([below, *(value / 1e3 for value in others.values())]):
        right.text(place, value, f"{value:,.0f}", ha="center", va="bottom", fontsize=11)
    left.set_xlabel("incremental step", fontsize=11)
    left.set_ylabel("added by the step (kB)", fontsize=11)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False, fontsize=11)
    right.set_xticks(range(len(others) + 1), ["this library", *others])
    right.set_xlim(-0.6, len(others) + 0.6)
    right.set_ylabel(f"added by steps 2 to {len(per_step)} together (kB)", fontsize=11)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def mask_bits(packed: Mapping[str, Sequence[float]], entropy: Sequence[float], title: str) -> Figure:
    """Bits a weight that the mask costs after each step: as packed, beside its entropy.

    Parameters
    ----------
    packed : name to bits a weight after steps 1, 2, ...
    entropy : the same, by the formula.
    """
    steps = np.arange(1, len(entropy) + 1)
    told = "; ".join(f"{name} packs to {bits[0]:.2f} and {bits[-1]:.2f}" for name, bits in packed.items())
    figure, axis = new_figure(f"Rising curve that bends over: bits a weight that the mask costs. Its entropy is {entropy[0]:.2f} "
                              f"after step 1 and {entropy[-1]:.2f} after step {len(entropy)}; {told}. One byte a weight would "
                              "cost 8.", width=5.6, height=3.6)
    for i, (name, bits) in enumerate(packed.items(), 1):
        axis.plot(steps[:len(bits)], bits, color=COLOURS[i % 7], linestyle="", marker=MARKS[i % 7], ms=9, mfc="none", mew=2,
                  label=f"packed, {name}")
    axis.plot(steps, entropy, color=COLOURS[0], lw=2, label="entropy, by the formula")
    axis.set_ylim(0, 1.35 * max(map(max, [entropy, *packed.values()])))
    axis.text(0.02, 0.98, "one byte a weight would cost 8", transform=axis.transAxes, va="top", fontsize=11)
    axis.set_xlabel("after step", fontsize=11)
    axis.set_ylabel("mask, bits a weight", fontsize=11)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(title, loc="left", fontsize=12)
    axis.legend(frameon=False, fontsize=11, loc="lower right")
    return figure


def _colour(owner: int) -> str:
    return COLOURS[(owner - 1) % 7] if owner else FREE


def _counts(owners: Tensor) -> str:
    return ", ".join(f"{int((owners == owner).sum())} " + (f"of step {owner}" if owner else "free")
                     for owner in sorted(set(owners.tolist())))


def _plain(part: str) -> str:
    return part.replace("_", " ")
