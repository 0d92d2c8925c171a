"""The checks that students call: right answers pass in any style, and each mistake is called by its own name."""
import ast
import inspect
import math
import re
import statistics
import textwrap
import time

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from m2kd_lite import checks
from m2kd_lite.checks import engine
from m2kd_lite.checks.compare import differs, same, unlike
from m2kd_lite.errors import M2KDError
from m2kd_lite.method import aligning, exemplars, losses, masks, metrics, reserving, snapshots, targets
from m2kd_lite.method.nets import IncrementalNet

# ---- what a student may write, right and wrong ----------------------------------------------------------------------


def loss_in_numpy_style(logits, targets, total_classes):
    stable = torch.clamp(logits, min=0) - logits * targets + torch.log1p(torch.exp(-torch.abs(logits)))
    return torch.sum(stable) / (logits.shape[0] * total_classes)


def loss_in_loops(logits, targets, total_classes):
    total = 0
    for i in range(len(logits)):
        for j in range(logits.shape[1]):
            total = total - targets[i, j] * F.logsigmoid(logits[i, j]) - (1 - targets[i, j]) * F.logsigmoid(-logits[i, j])
    return total / len(logits) / total_classes


def loss_with_einsum(logits, targets, total_classes):
    down = torch.einsum("ij,ij->", 1 - targets, F.softplus(logits))
    return (down + torch.einsum("ij,ij->", targets, F.softplus(-logits))) / logits.numel() * logits.shape[1] / total_classes


def loss_of_scores(logits, targets, total_classes):
    scores = torch.sigmoid(logits)
    return -(targets * scores.log() + (1 - targets) * (1 - scores).log()).sum() / (len(logits) * total_classes)


def auxiliary_in_one_sum(logits, soft_targets, labels, alpha, total_classes):
    old = soft_targets.shape[1]
    hard = torch.eye(logits.shape[1])[labels]
    terms = alpha * F.binary_cross_entropy_with_logits(logits, hard, reduction="none")
    soft = torch.cat([soft_targets, torch.zeros(len(labels), logits.shape[1] - old)], 1)
    weight = (torch.arange(logits.shape[1]) < old).float()
    terms = terms + weight * F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    return terms.sum() / len(labels) / total_classes


def auxiliary_from_losses(logits, soft_targets, labels, alpha, total_classes):
    old = soft_targets.shape[1]
    hard = torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
    return (loss_in_numpy_style(logits[:, :old], soft_targets, total_classes)
            + alpha * loss_with_einsum(logits, hard, total_classes))


def auxiliary_with(distil, classify=None, alpha_of=lambda alpha: (1, alpha)):
    """A wrong auxiliary loss of two parts, as a student might have put it together."""
    def wrong(logits, soft_targets, labels, alpha, total_classes):
        hard = torch.eye(logits.shape[1])[labels]
        old = soft_targets.shape[1]
        a, b = alpha_of(alpha)
        return (a * distil(logits[:, :old], soft_targets, total_classes)
                + b * (classify or distil)(logits, hard, total_classes))
    return wrong


def auxiliary_hard_in_new(logits, soft_targets, labels, alpha, total_classes):
    old = soft_targets.shape[1]
    hard = F.one_hot(labels - old, logits.shape[1] - old).float()
    return loss_with_einsum(logits[:, :old], soft_targets, total_classes) + alpha * (
        F.softplus(logits[:, old:]).sum() - (logits[:, old:] * hard).sum()) / len(labels) / total_classes


def targets_like(score=torch.sigmoid, mirror=3, own=lambda z, columns: z[:, list(columns)], head=lambda z, a: (z, a),
                 mode=lambda teacher: teacher, start=lambda labels, classes: torch.eye(classes)[labels],
                 order=(0, 1), grad=False, step=lambda step: step):
    """A target matrix built image by image and flip by flip, with one thing to get wrong."""
    def build(plan, teacher_of, images, labels, classes):
        with torch.set_grad_enabled(grad):
            both = [[start(labels, classes), start(labels, classes)] for _ in range(2)]             # head, flip
            for number, columns in plan:
                teacher = mode(teacher_of(step(number)))
                for flip in range(2):
                    view = images if flip == 0 or mirror is None else torch.flip(images, [mirror])
                    for matrix, logits in zip(both, head(*teacher(view)), strict=True):
                        if logits is not None:
                            columns_here = list(columns)
                            matrix[flip][:, columns_here] = score(own(logits, columns))
            return tuple(torch.stack([matrix[i] for i in order]) for matrix in both)
    return build


def targets_image_by_image(plan, teacher_of, images, labels, classes):
    pair = [torch.zeros(2, len(images), classes) for _ in range(2)]
    for i, image in enumerate(images):
        for flip in (0, 1):
            seen = image if flip == 0 else torch.from_numpy(image.numpy()[:, :, ::-1].copy())
            for matrix in pair:
                matrix[flip, i, labels[i]] = 1
            for step, columns in plan:
                with torch.no_grad():
                    for matrix, logits in zip(pair, teacher_of(step)(seen[None]), strict=True):
                        for j in columns if logits is not None else ():
                            matrix[flip, i, j] = 1 / (1 + math.exp(-logits[0, j]))
    return pair


@torch.no_grad()
def prune_in_python(weights, masks, step, ratio):
    new = {}
    for name, weight in weights.items():
        flat, owner = weight.view(-1), masks[name].flatten().tolist()
        free = [i for i, o in enumerate(owner) if o == 0]
        count = max(1, round(len(free) * (1 - ratio)))
        for i in sorted(free, key=lambda i: -abs(flat[i].item()))[:count]:
            owner[i] = step
        for i in free:
            if owner[i] == 0:
                flat[i] = 0
        new[name] = torch.tensor(owner, dtype=torch.uint8).reshape(weight.shape)
    return new


def prune_like(rank=np.abs, count=lambda free, all, ratio: max(1, round((1 - ratio) * free)), taken=lambda owner: owner == 0,
               zero=lambda owner, step: owner == 0, mark=lambda kept, owner, step: np.where(kept, step, owner), ties="first",
               in_place=True, dtype=np.uint8):
    """PackNet's rule in numpy, with one thing to get wrong."""
    def build(weights, masks, step, ratio):
        new = {}
        for name, weight in weights.items():
            values, owner = weight.data.numpy().ravel().copy(), masks[name].numpy().ravel()
            free = np.flatnonzero(taken(owner))
            number = count(len(free), len(owner), ratio)
            order = np.argsort(-rank(values[free]), kind="stable")
            kept = np.zeros(len(owner), dtype=bool)
            if ties == "first":
                kept[free[order[:number]]] = True
            elif ties == "last":
                kept[free[np.lexsort((-np.arange(len(free)), -rank(values[free])))[:number]]] = True
            else:
                threshold = rank(values[free])[order[number - 1]]
                kept[free] = rank(values[free]) >= threshold if ties == "all" else rank(values[free]) > threshold
            owner = mark(kept, owner, step).astype(dtype)
            values[zero(owner, step)] = 0
            new[name] = torch.from_numpy(owner).view(weight.shape)
            if in_place:
                weight.data.copy_(torch.from_numpy(values).view(weight.shape))
        return new
    return build


def prune_all_layers(weights, masks, step, ratio):
    free = torch.cat([w.detach()[masks[n] == 0].abs() for n, w in weights.items()])
    threshold = free.sort(descending=True).values[max(1, round((1 - ratio) * len(free))) - 1]
    new = {}
    for name, weight in weights.items():
        new[name] = masks[name].clone()
        new[name][(masks[name] == 0) & (weight.detach().abs() >= threshold)] = step
        weight.data[new[name] == 0] = 0
    return new


def prune_with_new_tensors(weights, masks, step, ratio):
    detached = {name: weight.detach().clone() for name, weight in weights.items()}
    new = prune_in_python(detached, masks, step, ratio)
    weights.update(detached)
    return new


def prune_under_autograd(weights, masks, step, ratio):
    for name, weight in weights.items():
        weight[masks[name] == 0] = 0.0


def prune_masks_in_place(weights, masks, step, ratio):
    masks.update(prune_in_python(weights, masks, step, ratio))
    return masks


def state_like(use=lambda mask, step: (mask >= 1) & (mask <= step),
               parts=lambda past, step: past.parts[step - 1], shared=True):
    """A state dictionary put together by hand, with one thing to get wrong."""
    def build(past, step):
        state = {name: torch.where(use(past.masks[name], step), weight, torch.zeros(()))
                 for name, weight in past.weights.items()}
        return {**state, **(past.shared if shared else {}), **parts(past, step)}
    return build


def state_in_loops(past, step):
    state = dict(past.parts[step - 1], **past.shared)
    for name in past.weights:
        kept = past.weights[name].clone()
        for number in (0, *range(step + 1, int(past.masks[name].max()) + 1)):
            kept[past.masks[name] == number] = 0
        state[name] = kept
    return state


def state_that_spoils_the_snapshots(past, step):
    for name, weight in past.weights.items():
        weight[(past.masks[name] == 0) | (past.masks[name] > step)] = 0
    return {**past.weights, **past.shared, **past.parts[step - 1]}


def mixed(past, step, latest):
    """This step's parts, but those whose names `latest` says from the last step."""
    return {name: past.parts[-1 if latest(name) else step - 1][name] for name in past.parts[step - 1]}


def is_head(name):
    return name.startswith(("main", "auxiliary"))


def old_plan(columns):
    old = [column for own in columns[:-1] for column in own]
    return [(len(columns) - 1, range(old[0], old[-1] + 1))] if old else []


def plan_backwards(columns):
    plan, last = (), len(columns)
    while last > 1:
        last -= 1
        plan += ((last, columns[last - 1]),)
    return plan


def fall(rows, j, earlier):
    return earlier([rows[k][j] for k in range(j, len(rows) - 1)]) - rows[-1][j]


def forgetting_by(earlier=max, over=len, steps=lambda rows: range(len(rows) - 1), sign=1):
    def wrong(rows):
        falls = [fall(rows, j, earlier) for j in steps(rows)]
        return sign * sum(falls) / over(falls) if falls else 0.0
    return wrong


def forgetting_in_numpy_style(rows):
    if len(rows) == 1:
        return 0
    table = np.full((len(rows), len(rows)), -np.inf)
    for k, row in enumerate(rows):
        table[k, :len(row)] = row
    return float((table[:-1, :-1].max(0) - table[-1, :-1]).mean())


def herding_by_distance(features, count):
    """As iCaRL's algorithm 4 is printed: the image that brings the mean of the picks nearest to the class mean."""
    mean, picked = features.mean(dim=0), []
    while len(picked) < min(count, len(features)):
        off = [math.inf if i in picked else torch.linalg.vector_norm(mean - features[[*picked, i]].mean(0)).item()
               for i in range(len(features))]
        picked.append(min(range(len(off)), key=off.__getitem__))
    return torch.tensor(picked)


def herding_like(correct=lambda w, mean, pick: w + mean - pick, count_of=min, again=False, first=0, cut_out=False,
                 mean_of=lambda rows, free: rows.mean(0), best=np.argmax):
    """Herding in numpy, with one thing to get wrong."""
    def build(features, count):
        rows = features.numpy().astype(np.float64)
        w, free, picked = rows.mean(0), list(range(len(rows))), []
        for _ in range(count_of(count, len(rows))):
            at = int(best(rows[free] @ w))
            pick = rows[free[at]]
            picked.append((at if cut_out else free[at]) + first)
            if not again:
                del free[at]
            if free:
                w = correct(w, mean_of(rows, free), pick)
        return torch.tensor(picked)
    return build


def herding_as_released(features, count):
    rows = features.numpy()
    mean, rank = rows.mean(0), np.zeros(len(rows), dtype=int)
    w, turn = mean.copy(), 0
    while (rank > 0).sum() < min(count, len(rows)) and turn < 1000:
        at = np.argmax(rows @ w)
        if rank[at] == 0:
            rank[at] = 1 + rank.max()
        w, turn = w + mean - rows[at], turn + 1
    return torch.from_numpy(np.argsort(np.where(rank > 0, rank, 999), kind="stable")[:(rank > 0).sum()])


def mean_in_loops(features, kept, labels, total_classes):
    means = {}
    for label in labels.unique().tolist():
        own = kept[labels == label]
        mean = sum(own) / len(own)
        means[label] = mean / mean.norm()
    return torch.tensor([min(means, key=lambda label: (row - means[label]).square().sum().item()) for row in features])


def mean_in_numpy_style(features, kept, labels, total_classes):
    table = torch.zeros(total_classes, kept.shape[1]).index_add_(0, labels, kept)
    table = table / torch.linalg.vector_norm(table, dim=1, keepdim=True)
    distances = torch.cdist(features, table)
    return distances.nan_to_num(math.inf).argmin(dim=1)


def mean_like(decide=lambda x, means: torch.cdist(x, means).argmin(1), scale=lambda mean: mean / mean.norm(),
              of=lambda rows: rows.mean(0), classes=lambda labels, total: range(int(labels.max()) + 1), number=lambda labels: {}):
    """The nearest mean class by class, with one thing to get wrong."""
    def build(features, kept, labels, total_classes):
        means = torch.stack([scale(of(kept[labels == label])) if (labels == label).any() else torch.zeros(kept.shape[1])
                             for label in classes(labels, total_classes)])
        decided, renamed = decide(features, means), number(labels)
        return torch.tensor([renamed.get(label, label) for label in decided.tolist()]) if renamed else decided
    return build


def all_classes(labels, total):
    return range(total)


# ---- what nothing beats, and aligned rows ---------------------------------------------------------------------------

def frontier_by_sweeping(carried, accuracy):
    """From the cheapest on; the most accurate of those with the same bytes first."""
    found, best = [], None
    for i in sorted(range(len(carried)), key=lambda i: (carried[i], -accuracy[i], i)):
        if best is None or accuracy[i] > accuracy[best] or (carried[i], accuracy[i]) == (carried[best], accuracy[best]):
            found.append(i)
            best = i
    return found


def frontier_in_numpy(carried, accuracy):
    x, y = np.array(carried), np.array(accuracy)
    beats = (x[:, None] <= x) & (y[:, None] >= y) & ((x[:, None] < x) | (y[:, None] > y))
    left = np.flatnonzero(~beats.any(0))
    return left[np.argsort(x[left], kind="stable")].tolist()


def share(weight, old):
    return torch.linalg.vector_norm(weight[:old], dim=1).mean() / torch.linalg.vector_norm(weight[old:], dim=1).mean() if old else 1.0


def rows_in_a_loop(weight, old):
    lengths = [float((row * row).sum()) ** 0.5 for row in weight]
    if old == 0:
        return weight
    ratio = (sum(lengths[:old]) / old) / (sum(lengths[old:]) / (len(lengths) - old))
    return torch.stack([row * (ratio if i >= old else 1.0) for i, row in enumerate(weight)])


def rows_of_a_copy(weight, old):
    new = weight.clone()
    new[old:] *= share(weight, old)
    return new


def rows_like(ratio, of="all", empty=True):
    """Rows scaled by a wrong number, which is made of both blocks; `empty`: whether step 1 was thought of."""
    def wrong(weight, old):
        if old == 0 and empty:
            return weight.clone()
        new, part = weight.clone(), {"old": slice(0, old), "new": slice(old, None)}.get(of, slice(None))
        new[part] = new[part] * ratio(weight[:old], weight[old:])
        return new
    return wrong


def long(rows):
    return rows.pow(2).sum(1).sqrt()


def beaten_like(beats):
    def wrong(carried, accuracy):
        pairs = list(zip(carried, accuracy, strict=True))
        left = [i for i, (x, y) in enumerate(pairs) if not any(beats(u, v, x, y) for j, (u, v) in enumerate(pairs) if j != i)]
        return sorted(left, key=lambda i: pairs[i][0])
    return wrong


# ---- the masks of a painter -----------------------------------------------------------------------------------------

def steep_like(reach=lambda epoch, epochs: epoch / (epochs - 1) if epochs > 1 else 1, go=lambda batch, batches: batch / (batches - 1) if batches > 1 else 1,
               begin=lambda most, top: top if top < 1 else 1 / top, top_of=None):
    def steepness(epoch, epochs, batch, batches, most):
        share = reach(epoch, epochs)
        top = (1 - share) / most + share * most if top_of is None else top_of(most)
        start = begin(most, top)
        return (1 - go(batch, batches)) * start + go(batch, batches) * top
    return steepness


def steep_in_numpy(epoch, epochs, batch, batches, most):
    top = np.linspace(1 / most, most, epochs)[epoch] if epochs > 1 else most
    return np.linspace(min(1 / top, top), top, batches)[batch].item() if batches > 1 else float(top)


def cumulated(masks, weight):
    wide = [F.pad(mask.int(), (0, 0, 0, 0, 0, weight.shape[1] - mask.shape[1], 0, weight.shape[0] - mask.shape[0])) for mask in masks]
    return sum(wide, torch.zeros(weight.shape, dtype=torch.int)) > 0


def cumulated_one_by_one(masks, weight):
    taken = torch.zeros(weight.shape, dtype=torch.bool)
    for mask in masks:
        for i, j in torch.argwhere(mask.flatten(2).any(2)).tolist():
            taken[i, j] = taken[i, j] | mask[i, j]
    return taken


def counted(masks, weight):
    return sum((cumulated([mask], weight).int() for mask in masks), torch.zeros(weight.shape, dtype=torch.int))


def taken_at_the_end(masks, weight):
    return cumulated([mask.flip(0, 1) for mask in masks], weight).flip(0, 1)


RIGHT = {
    "average_incremental_accuracy": [statistics.fmean, np.mean, lambda top1: sum(a / len(top1) for a in top1)],
    "forgetting": [forgetting_by(), forgetting_in_numpy_style],
    "distillation_loss": [loss_in_numpy_style, loss_in_loops, loss_with_einsum],
    "sequential_plan": [old_plan, lambda columns: [(len(columns) - 1, own) for own in columns[:-1]]],
    "multi_model_plan": [plan_backwards, lambda columns: list(enumerate(columns[:-1], start=1))],
    "multi_model_targets": [targets_like(), targets_image_by_image],
    "auxiliary_loss": [auxiliary_in_one_sum, auxiliary_from_losses, auxiliary_with(loss_in_loops)],
    "prune": [prune_in_python, prune_like()],
    "active": [lambda mask, step: (mask != 0) & ~(mask > step), lambda mask, step: (mask - 1.0).div(step).floor() == 0,
               lambda mask, step: torch.isin(mask, torch.arange(1, step + 1))],
    "reconstruct": [state_like(), state_in_loops],
    "herding": [herding_like(), herding_by_distance],
    "nearest_mean": [mean_in_loops, mean_in_numpy_style, mean_like(lambda x, means: (x @ means.T).argmax(1))],
    "annealed": [steep_like(), steep_in_numpy],
    "soft_mask": [lambda embedding, s: 1 / (1 + torch.exp((-s * embedding).clamp(max=80))), lambda embedding, s: (torch.tanh(s * embedding / 2) + 1) / 2],
    "cumulative_mask": [cumulated, cumulated_one_by_one],
    "free_gradient": [lambda gradient, reserved: torch.where(reserved, torch.zeros_like(gradient), gradient),
                      lambda gradient, reserved: torch.zeros_like(gradient).masked_scatter(~reserved, gradient[~reserved])],
    "frontier": [frontier_by_sweeping, frontier_in_numpy, lambda carried, accuracy: np.array(frontier_by_sweeping(carried, accuracy)).tolist()],
    "aligned_rows": [rows_in_a_loop, lambda weight, old: torch.cat([weight[:old], weight[old:] * share(weight, old)]), rows_of_a_copy],
}

MUTANTS = [(name, fragment, function) for name, rows in {
    "average_incremental_accuracy": [
        ("last accuracy", lambda top1: top1[len(top1) - 1]),
        ("first accuracy", lambda top1: next(iter(top1))),
        ("best accuracy", lambda top1: sorted(top1)[-1]),
        ("not shared out", lambda top1: math.fsum(top1)),
        ("first step is left out", lambda top1: float(np.mean(top1[1:])) if top1[1:] else 0.0),
        ("fraction", lambda top1: statistics.fmean(top1) * 0.01),
        ("weigh more", lambda top1: float(np.average(top1, weights=range(1, len(top1) + 1)))),
        ("median", lambda top1: float(np.median(top1))),
    ],
    "forgetting": [
        ("first accuracy", forgetting_by(lambda before: before[0])),
        ("just before the last", forgetting_by(lambda before: before[-1])),
        ("average of the earlier", forgetting_by(statistics.fmean)),
        ("counts as 0", lambda rows: sum(max(row[j] for row in rows[j:]) - rows[-1][j] for j in range(len(rows) - 1))
            / max(1, len(rows) - 1)),
        ("shared out over all steps", forgetting_by(over=lambda falls: len(falls) + 1)),
        ("twice over", lambda rows: statistics.fmean(
            max(row[j] for row in rows[j:]) - rows[-1][j] for j in range(len(rows)))),
        ("sign is turned", forgetting_by(sign=-1)),
        ("not averaged", forgetting_by(over=lambda falls: 1)),
        ("worst fall", lambda rows: max([0.0] if len(rows) == 1 else [fall(rows, j, max) for j in range(len(rows) - 1)])),
        ("first step's classes", forgetting_by(steps=lambda rows: range(min(1, len(rows) - 1)))),
        ("breaks off", lambda rows: sum(fall(rows, j, max) for j in range(len(rows) - 1)) / (len(rows) - 1)),
    ],
    "distillation_loss": [
        ("printed half", lambda z, t, total: -(t * torch.log(torch.sigmoid(z))).sum() / len(z) / total),
        ("number of images alone", lambda z, t, total: loss_with_einsum(z, t, 1)),
        ("classes seen so far", lambda z, t, total: F.binary_cross_entropy_with_logits(z, t)),
        ("not divided by anything", lambda z, t, total: F.binary_cross_entropy_with_logits(z, t, reduction="sum")),
        ("classes alone", lambda z, t, total: F.binary_cross_entropy_with_logits(z, t, reduction="sum") / total),
        ("one loss per image, averaged",
         lambda z, t, total: F.binary_cross_entropy_with_logits(z, t, reduction="none").mean(-1)),
        ("one loss per column", lambda z, t, total: F.binary_cross_entropy_with_logits(z, t, reduction="none").mean(0)),
        ("applied twice", lambda z, t, total: loss_in_numpy_style(torch.sigmoid(z), t, total)),
        ("sigmoid is forgotten", lambda z, t, total: -(t * z.log() + (1 - t) * (1 - z).log()).sum() / len(z) / total),
        ("sigmoid is missing", lambda z, t, total: F.binary_cross_entropy(z, t, reduction="sum") / len(z) / total),
        ("applied to the targets", lambda z, t, total: loss_in_numpy_style(z, torch.sigmoid(t), total)),
        ("classes compete", lambda z, t, total: -(t * z.log_softmax(1)).sum(1).mean()),
        ("add up to 1", lambda z, t, total: F.binary_cross_entropy(z.softmax(1), t, reduction="sum") / len(z) / total),
        ("sign is missing", lambda z, t, total: (t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)).sum() / len(z) / total),
        ("squared error", lambda z, t, total: F.mse_loss(z.sigmoid(), t, reduction="sum") / len(z) / total),
        ("no gradient", lambda z, t, total: loss_with_einsum(z.detach(), t, total)),
        ("small logits", loss_of_scores),
    ],
    "sequential_plan": [
        ("Eq. 2", plan_backwards),
        ("about to be trained", lambda columns: [(p + 1, own) for p, own in old_plan(columns)]),
        ("counts from 0", lambda columns: [(p - 1, own) for p, own in old_plan(columns)]),
        ("first model", lambda columns: [(1, own) for _, own in old_plan(columns)]),
        ("new classes' columns", lambda columns: [(p, range(columns[-1].stop)) for p, _ in old_plan(columns)]),
        ("own step's columns", lambda columns: [(p, columns[p - 1]) for p, _ in old_plan(columns)]),
        ("last old column", lambda columns: [(p, own[:-1]) for p, own in old_plan(columns)]),
        ("first column is left out", lambda columns: [(p, own[1:]) for p, own in old_plan(columns)]),
        ("counted from 1", lambda columns: [(p, range(1, own.stop + 1)) for p, own in old_plan(columns)]),
        ("as large as", lambda columns: [(p, range(len(columns[0]) * p)) for p, _ in old_plan(columns)]),
        ("model 0", lambda columns: [(len(columns) - 1, range(0, columns[-1].start))]),
        ("before the first", lambda columns: [(len(columns) - 1, range(columns[-2].stop))]),
    ],
    "multi_model_plan": [
        ("Eq. 1: the penultimate", old_plan),
        ("last one wins", lambda columns: [(j + 1, range(own.stop)) for j, own in enumerate(columns[:-1])]),
        ("about to be trained", lambda columns: [(j + 1, own) for j, own in enumerate(columns)]),
        ("count from 0", lambda columns: list(enumerate(columns[:-1]))),
        ("after its own", lambda columns: list(enumerate(columns))[1:]),
        ("too late", lambda columns: [(j + 2, own) for j, own in enumerate(columns[:-1])]),
        ("penultimate model is left out", lambda columns: [(j, columns[j - 1]) for j in range(1, len(columns) - 1)]),
        ("first model is left out", lambda columns: [(j, columns[j - 1]) for j in range(2, len(columns))]),
        ("reverse", lambda columns: [(len(columns) - 1 - j, own) for j, own in enumerate(columns[:-1])]),
        ("last column", lambda columns: [(j + 1, own[:-1]) for j, own in enumerate(columns[:-1])]),
        ("first column of each", lambda columns: [(j + 1, own[1:]) for j, own in enumerate(columns[:-1])]),
        ("as large as", lambda columns: [(j, range(3 * (j - 1), 3 * j)) for j in range(1, len(columns))]),
    ],
    "multi_model_targets": [
        ("train mode", targets_like(mode=lambda teacher: teacher.train())),
        ("carry gradients", targets_like(grad=True)),
        ("sigmoid is forgotten", targets_like(score=lambda z: z)),
        ("all classes a teacher knows", targets_like(score=lambda z: z, own=lambda z, c: z.softmax(1)[:, list(c)])),
        ("the columns a teacher fills", targets_like(score=lambda z: torch.softmax(z, -1))),
        ("rounded", targets_like(score=lambda z: (z > 0).float())),
        ("whole numbers", targets_like(start=F.one_hot, score=lambda z: torch.sigmoid(z).long())),
        ("mirror images are missing", targets_like(mirror=None)),
        ("both indices", targets_like(order=(1, 1))),
        ("swapped", targets_like(order=(1, 0))),
        ("upside down", targets_like(mirror=2)),
        ("changed places", lambda *arguments: targets_like()(*arguments)[::-1]),
        ("are the main head's", targets_like(head=lambda z, a: (z, z))),
        ("two names", targets_like(head=lambda z, a: (z, z) if a is None else (a, a))),
        ("as the labels made it", targets_like(head=lambda z, a: (z, None))),
        ("Eq. 2 becomes Eq. 1", lambda plan, *rest: targets_like()([(p, range(own.stop)) for p, own in plan], *rest)),
        ("last column of each", lambda plan, *rest: targets_like()([(p, own[:-1]) for p, own in plan], *rest)),
        ("first outputs", targets_like(own=lambda z, columns: z[:, :len(columns)])),
        ("too early", targets_like(step=lambda step: step - 1)),
        ("labels are missing", targets_like(start=lambda labels, classes: torch.zeros(len(labels), classes))),
        ("not expected", targets_like(head=lambda z, a: (z, a * 1.0))),
        ("keeps the 1", lambda plan, teacher_of, images, labels, classes: tuple(
            torch.maximum(matrix, torch.eye(classes)[labels])
            for matrix in targets_like()(plan, teacher_of, images, labels, classes))),
        ("scaled once more",
         lambda plan, teacher_of, images, *rest: targets_like()(plan, teacher_of, images.float() / 255, *rest)),
    ],
    "auxiliary_loss": [
        ("loss of Eq. 2", lambda z, s, y, alpha, total: loss_in_numpy_style(
            z, torch.cat([s, torch.eye(z.shape[1])[y][:, s.shape[1]:]], 1), total)),
        ("wrong sum", auxiliary_with(loss_with_einsum, alpha_of=lambda alpha: (alpha, 1))),
        ("both sums", auxiliary_with(loss_with_einsum, alpha_of=lambda alpha: (alpha, alpha))),
        ("neither sum", auxiliary_with(loss_with_einsum, alpha_of=lambda alpha: (1, 1))),
        ("share a weight", auxiliary_with(loss_with_einsum, alpha_of=lambda alpha: (1 - alpha, alpha))),
        ("hard labels are missing", auxiliary_with(loss_with_einsum, alpha_of=lambda alpha: (1, 0))),
        ("new columns only", auxiliary_hard_in_new),
        ("printed half", auxiliary_with(lambda z, t, total: -(t * F.logsigmoid(z)).sum() / len(z) / total)),
        ("images alone", auxiliary_with(lambda z, t, total: loss_with_einsum(z, t, 1))),
        ("own number of columns", auxiliary_with(lambda z, t, total: F.binary_cross_entropy_with_logits(z, t))),
        ("not divided", auxiliary_with(lambda z, t, total: loss_with_einsum(z, t, 1) * len(z))),
        ("PyTorch's cross entropy",
         auxiliary_with(loss_with_einsum, lambda z, hard, total: F.cross_entropy(z, hard.argmax(1)))),
        ("no gradient", lambda z, *rest: auxiliary_in_one_sum(z.detach(), *rest)),
        ("small logits", auxiliary_with(loss_of_scores)),
    ],
    "prune": [
        ("share that is kept here", prune_like(count=lambda free, all, ratio: round(ratio * free))),
        ("all weights of a layer", prune_like(count=lambda free, all, ratio: min(free, round((1 - ratio) * all)))),
        ("all layers together", prune_all_layers),
        ("not set to zero", prune_like(in_place=False)),
        ("earlier steps are set to zero", prune_like(zero=lambda owner, step: owner != step)),
        ("new owner", prune_like(taken=lambda owner: owner >= 0)),
        ("forget the earlier owners", prune_like(mark=lambda kept, owner, step: kept * step)),
        ("by value", prune_like(rank=lambda values: values)),
        ("smallest", prune_like(rank=lambda values: -np.abs(values))),
        ("inverted", prune_like(mark=lambda kept, owner, step: np.where(owner > 0, owner, np.where(kept, 0, step)))),
        ("by which step", prune_like(mark=lambda kept, owner, step: (kept | (owner > 0)).astype(int))),
        ("too many are kept", prune_like(ties="all")),
        ("too few are kept", prune_like(ties="none")),
        ("not the earlier position", prune_like(ties="last")),
        ("cut off", prune_like(count=lambda free, all, ratio: max(1, int((1 - ratio) * free)))),
        ("always rounded up", prune_like(count=lambda free, all, ratio: math.ceil((1 - ratio) * free))),
        ("keeps none", prune_like(count=lambda free, all, ratio: round((1 - ratio) * free))),
        ("into the dictionary", prune_with_new_tensors),
        ("autograd", prune_under_autograd),
        ("changed its argument `masks`", prune_masks_in_place),
    ],
    "active": [
        ("free weights (M = 0) count", lambda mask, step: ~(mask > step)),
        ("own step are left out: later", lambda mask, step: (0 < mask) & (mask < step)),
        ("one end forgotten", lambda mask, step: mask + 1.0 <= step),
        ("own step alone", lambda mask, step: mask.eq(step)),
        ("inverted", lambda mask, step: (mask == 0) | (mask > step)),
        ("later steps, which", lambda mask, step: mask.gt(step)),
        ("wrong way round", lambda mask, step: mask.ge(step)),
        ("whatever the step", lambda mask, step: mask.bool()),
        ("free weights.", lambda mask, step: ~mask.bool()),
        ("brackets", lambda mask, step: (mask > 0) & mask <= step),
        ("dtype", lambda mask, step: masks.active(mask, step).to(torch.uint8)),
    ],
    "reconstruct": [
        ("the free ones", state_like(use=lambda mask, step: torch.ones_like(mask, dtype=torch.bool))),
        ("every weight with an owner", state_like(use=lambda mask, step: mask > 0)),
        ("M = 0", state_like(use=lambda mask, step: mask <= step)),
        ("own step are missing", state_like(use=lambda mask, step: (mask > 0) & (mask < step))),
        ("built on them", state_like(use=lambda mask, step: mask == step)),
        ("should be kept are zero", state_like(use=lambda mask, step: (mask == 0) | (mask > step))),
        ("latest step; each model", state_like(parts=lambda past, step: past.parts[-1])),
        ("batch norm is that of the latest",
         state_like(parts=lambda past, step: mixed(past, step, lambda n: not is_head(n)))),
        ("the heads are those of the latest", state_like(parts=lambda past, step: mixed(past, step, is_head))),
        ("lists from 0", state_like(parts=lambda past, step: past.parts[step])),
        ("batch norm of this step is missing", state_like(
            parts=lambda past, step: {n: p for n, p in past.parts[step - 1].items() if is_head(n)})),
        ("the heads of this step are missing", state_like(
            parts=lambda past, step: {n: p for n, p in past.parts[step - 1].items() if not is_head(n)})),
        ("weights alone", state_like(parts=lambda past, step: {})),
        ("pixel statistics that all models share are missing from", state_like(shared=False)),
        ("this step's parts alone", lambda past, step: past.parts[step - 1]),
        ("changed the snapshots", state_that_spoils_the_snapshots),
    ],
    "herding": [
        ("picked twice", herding_like(again=True)),
        ("again and again", herding_like(lambda w, mean, pick: w, again=True)),
        ("nothing to pick from", herding_like(count_of=lambda count, number: count)),
        ("nearest to the mean", lambda features, count: (features @ features.mean(0)).sort(descending=True).indices[:count]),
        ("nearest to the mean", herding_like(lambda w, mean, pick: w + mean)),         # the pick is never taken off: the same
        ("mean is taken off", herding_like(lambda w, mean, pick: w - mean - pick)),
        ("mean is not added", herding_like(lambda w, mean, pick: w - pick)),
        ("pick is added", herding_like(lambda w, mean, pick: w + mean + pick)),
        ("begins anew", herding_like(lambda w, mean, pick: mean - pick)),
        ("found again", herding_as_released),
        ("images still there; it stays", herding_like(mean_of=lambda rows, free: rows[free].mean(0))),
        ("least is picked", herding_like(best=np.argmin)),
        ("among the images still there", herding_like(cut_out=True)),
        ("order of their positions", lambda features, count: torch.tensor(sorted(herding_like()(features, count).tolist()))),
        ("wrong way round", lambda features, count: torch.tensor(herding_like()(features, count).tolist()[::-1])),
        ("features of the picks", lambda features, count: torch.stack([features[i] for i in herding_like()(features, count)])),
        ("a mark for each image",
         lambda features, count: torch.isin(torch.arange(len(features)), herding_like()(features, count))),
        ("positions count from 1", herding_like(first=1)),
        ("one pick more", herding_like(count_of=lambda count, number: min(count + 1, number))),
        ("one pick fewer", herding_like(count_of=lambda count, number: min(count, number) - 1)),
        ("however many are asked for", herding_like(count_of=lambda count, number: number)),
        ("goes on after the last", lambda features, count: torch.tensor(
            [herding_like()(features, count).tolist()[i % len(features)] for i in range(count)])),
    ],
    "nearest_mean": [
        ("distances or cosines", lambda features, kept, labels, total: torch.cdist(features, kept)),
        ("distances or cosines", mean_like(lambda x, means: torch.cdist(x, means).amin(1))),
        ("mean of zeros", mean_like(classes=all_classes)),
        ("beats a negative one", mean_like(lambda x, means: torch.einsum("nd,cd->nc", x, means).argmax(1), classes=all_classes)),
        ("wins every comparison", lambda features, kept, labels, total: (features @ F.normalize(torch.stack(
            [kept[labels == label].mean(0) for label in range(total)])).T).argmax(1)),
        ("least like the image", mean_like(lambda x, means: torch.cdist(x, means).argmax(1))),
        ("shorter than 1", mean_like(scale=lambda mean: mean)),
        ("favours the longer ones", mean_like(lambda x, means: (x @ means.T).argmax(1), scale=lambda mean: mean)),
        ("sums, not means",
         mean_like(lambda x, means: (x @ means.T).argmax(1), scale=lambda mean: mean, of=lambda rows: rows.sum(0))),
        ("nearest exemplar", lambda features, kept, labels, total: labels[torch.cdist(features, kept).argmin(1)]),
        ("classes count from 1", lambda *arguments: mean_in_loops(*arguments) + 1),
        ("in which their exemplars come", mean_like(number=lambda labels: {
            label: place for place, label in enumerate(sorted(set(labels.tolist()), key=labels.tolist().index))})),
        ("last class that has been seen", mean_like(classes=lambda labels, total: range(int(labels.max())))),
    ],
    "annealed": [
        ("starts over in each epoch", steep_like(top_of=lambda most: most)),
        ("stays the same within", steep_like(go=lambda batch, batches: 1)),
        ("last epoch does not reach", steep_like(reach=lambda epoch, epochs: epoch / epochs)),
        ("epochs are counted from 1", steep_like(reach=lambda epoch, epochs: (epoch + 1) / epochs)),
        ("last batch of an epoch does not", steep_like(go=lambda batch, batches: batch / batches)),
        ("batches are counted from 1", steep_like(go=lambda batch, batches: (batch + 1) / batches)),
        ("begins at 0", steep_like(begin=lambda most, top: 0)),
        ("smallest s of all", steep_like(begin=lambda most, top: 1 / most)),
        ("in the first epoch s falls", steep_like(begin=lambda most, top: 1 / top)),
        ("with a single epoch it is", steep_like(reach=lambda epoch, epochs: epoch / max(1, epochs - 1))),
        ("with a single batch it is", steep_like(go=lambda batch, batches: batch / max(1, batches - 1))),
        ("with a single epoch this divides", steep_like(reach=lambda epoch, epochs: epoch / (epochs - 1))),
        ("with a single batch this divides", steep_like(go=lambda batch, batches: batch / (batches - 1))),
    ],
    "soft_mask": [
        ("steepness is not used", lambda embedding, s: embedding.sigmoid()),
        ("divided by s", lambda embedding, s: 1 / (1 + torch.exp(-embedding / s))),
        ("s multiplies the sigmoid", lambda embedding, s: embedding.sigmoid() * s),
        ("upside down", lambda embedding, s: 1 - (s * embedding).sigmoid()),
        ("binary from the start", lambda embedding, s: torch.where(embedding > 0, 1.0, 0.0)),
        ("tanh runs", lambda embedding, s: 2 * (2 * s * embedding).sigmoid() - 1),
        ("the softmax makes", lambda embedding, s: (s * embedding).softmax(-1)),
    ],
    "cumulative_mask": [
        ("only the last step", lambda masks, weight: cumulated(masks[-1:], weight)),
        ("only the first step", lambda masks, weight: cumulated(masks[:1], weight)),
        ("every step took", lambda masks, weight: counted(masks, weight) == len(masks)),
        ("two steps take is free", lambda masks, weight: counted(masks, weight) % 2 == 1),
        ("other way round", lambda masks, weight: counted(masks, weight) == 0),
        ("counts of steps", lambda masks, weight: counted(masks, weight).long()),
        ("size of an old mask", lambda masks, weight: cumulated(masks, masks[-1]) if masks else weight > math.inf),
        ("grows at its end", taken_at_the_end),
        ("do not have the same size", lambda masks, weight: weight > math.inf if not masks else torch.stack(masks).sum(0) > 0),
    ],
    "free_gradient": [
        ("other way round", lambda gradient, reserved: torch.where(reserved, gradient, 0.0)),
        ("infinity times 0", lambda gradient, reserved: gradient * (1 - reserved.float())),
        ("nothing is held still", lambda gradient, reserved: gradient.clone()),
        ("only the free part", lambda gradient, reserved: torch.masked_select(gradient, ~reserved)),
        ("the mask itself", lambda gradient, reserved: 1 - reserved.float()),
        ("a whole layer", lambda gradient, reserved: gradient * float(not reserved.any()) if not gradient.isinf().any() else torch.zeros_like(gradient)),
    ],
    "frontier": [
        ("each beats the other", beaten_like(lambda u, v, x, y: u <= x and v >= y)),
        ("same bytes and more accuracy", beaten_like(lambda u, v, x, y: u < x and v >= y)),
        ("fewer bytes and the same accuracy", beaten_like(lambda u, v, x, y: u <= x and v > y)),
        ("better in both beats here", beaten_like(lambda u, v, x, y: u < x and v > y)),
        ("better in one of the two", beaten_like(lambda u, v, x, y: u < x or v > y)),
        ("more bytes count", beaten_like(lambda u, v, x, y: u >= x and v >= y and (u, v) != (x, y))),
        ("less accuracy counts", beaten_like(lambda u, v, x, y: u <= x and v <= y and (u, v) != (x, y))),
        ("not in the order of bytes", lambda carried, accuracy: sorted(frontier_by_sweeping(carried, accuracy))),
        ("descending", lambda carried, accuracy: frontier_by_sweeping(carried, accuracy)[::-1]),
        ("count from 1", lambda carried, accuracy: [i + 1 for i in frontier_in_numpy(carried, accuracy)]),
        ("the bytes themselves", lambda carried, accuracy: [carried[i] for i in frontier_in_numpy(carried, accuracy)]),
        ("nothing is beaten here", lambda carried, accuracy: np.argsort(carried, kind="stable").tolist()),
        ("settings that are beaten", lambda carried, accuracy: [
            i for i in sorted(range(len(carried)), key=lambda i: carried[i]) if i not in frontier_in_numpy(carried, accuracy)]),
    ],
    "aligned_rows": [
        ("upside down", rows_like(lambda old, new: long(new).mean() / long(old).mean(), "new")),
        ("they stay as they are", rows_like(lambda old, new: long(new).mean() / long(old).mean(), "old")),
        ("by the ratio that is meant", rows_like(lambda old, new: long(old).mean() / long(new).mean(), "old")),
        ("all rows are scaled", rows_like(lambda old, new: long(old).mean() / long(new).mean())),
        ("its own factor", rows_like(lambda old, new: long(old).mean() / long(new)[:, None], "new")),
        ("to length 1", lambda weight, old: F.normalize(weight, dim=1)),
        ("sums of the lengths", rows_like(lambda old, new: long(old).sum() / long(new).sum(), "new")),
        ("length of the mean row", rows_like(lambda old, new: old.mean(0).norm() / new.mean(0).norm(), "new")),
        ("whole blocks", rows_like(lambda old, new: old.norm() / new.norm(), "new")),
        ("squared lengths", rows_like(lambda old, new: (long(old) ** 2).mean() / (long(new) ** 2).mean(), "new")),
        ("absolute values", rows_like(lambda old, new: old.abs().sum(1).mean() / new.abs().sum(1).mean(), "new")),
        ("columns, the features", rows_like(lambda old, new: long(old.T).mean() / long(new.T).mean(), "new")),
        ("mean of nothing", rows_like(lambda old, new: long(old).mean() / long(new).mean(), "new", empty=False)),
        ("only the new rows", lambda weight, old: rows_of_a_copy(weight, old)[old:]),
    ],
}.items() for fragment, function in rows]

LIBRARY = {
    "average_incremental_accuracy": metrics.average_incremental_accuracy, "forgetting": metrics.forgetting,
    "distillation_loss": losses.distillation_loss, "sequential_plan": targets.penultimate,
    "multi_model_plan": targets.own_step, "multi_model_targets": targets.target_matrix,
    "auxiliary_loss": losses.auxiliary_loss, "prune": masks.prune, "active": masks.active,
    "reconstruct": snapshots.Snapshots.state, "herding": exemplars.herding, "nearest_mean": checks.exemplars.nearest_mean,
    "annealed": reserving.annealed, "soft_mask": reserving.soft_mask, "cumulative_mask": reserving.cumulative_mask,
    "free_gradient": reserving.free_gradient, "frontier": metrics.frontier, "aligned_rows": aligning.aligned_rows,
}
NAMES = sorted(LIBRARY)


@pytest.fixture(autouse=True)
def one_thread():
    """As in a check: the inputs are tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def message_of(name, function):
    with pytest.raises(checks.NotYet) as caught:
        getattr(checks, name)(function)
    return str(caught.value)


# ---- right answers --------------------------------------------------------------------------------------------------


def test_there_is_a_check_for_every_exercise():
    assert sorted(checks.EXERCISES) == NAMES and set(checks.__all__) == {"EXERCISES", "NotYet", *NAMES}
    assert all(getattr(checks, name).__doc__ for name in NAMES)


@pytest.mark.parametrize("name, function", [(name, right) for name in NAMES for right in [LIBRARY[name], *RIGHT[name]]])
def test_a_right_answer_in_any_style_passes(name, function, capsys):
    assert getattr(checks, name)(function) is None
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(checks.EXERCISES[name].cases) and all(line.startswith("  passed   ") for line in lines)
    assert last == f"{name}: all {len(lines)} passed."


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, fragment, function", MUTANTS, ids=[f"{name}: {fragment}" for name, fragment, _ in MUTANTS])
def test_a_mistake_is_called_by_its_name(name, fragment, function):
    message = message_of(name, function)
    assert fragment in message and message.startswith(f"{name}: ") and "\n" not in message
    assert re.search(r"[.?] Look at (Eq|section|docs|the docstring|torch|iCaRL|the lesson|Zhao|HAT).*\.$", message)
    for other_name, other, _ in MUTANTS:
        assert other_name != name or other == fragment or other not in message


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_knows_its_mistakes_apart(name):
    exercise = checks.EXERCISES[name]
    assert len(exercise.mistakes) >= 4 and sum(mutant[0] == name for mutant in MUTANTS) >= 4 and len(RIGHT[name]) >= 2
    messages = [mistake.message for mistake in exercise.mistakes]
    assert len(set(messages)) == len(messages)
    assert all((mistake.wrong is None) != (mistake.sign is None) for mistake in exercise.mistakes)
    expected = engine.outcomes(exercise, exercise.reference)
    of_wrong = {mistake.message: engine.outcomes(exercise, mistake.wrong) for mistake in exercise.mistakes if mistake.wrong}
    alike = [[same(a.value, b.value, exercise.tolerance) and type(a.error) is type(b.error) and a.changed == b.changed
              for a, b in zip(one, other, strict=True)]
             for i, one in enumerate([expected, *of_wrong.values()]) for other in [expected, *of_wrong.values()][:i]]
    assert not any(all(cases) for cases in alike)           # no wrong function does what another one, or the right one, does


@pytest.mark.parametrize("name", NAMES)
def test_no_message_gives_the_answer(name):
    """No expression of the library's function (nor of those it is made of) stands in a message."""
    made_of = {"distillation_loss": [losses.binary_cross_entropy], "auxiliary_loss": [losses.binary_cross_entropy],
               "prune": [masks.kept_count], "nearest_mean": [exemplars.means_of, exemplars.nearest]}
    answers = set()
    for function in [LIBRARY[name], *made_of.get(name, [])]:
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
            if isinstance(node, (ast.Call, ast.Compare, ast.BinOp, ast.Subscript, ast.ListComp, ast.DictComp)):
                answers.add(re.sub(r"\s", "", ast.unparse(node)))
    answers = {answer for answer in answers if len(answer) >= 6}
    assert answers
    said = [mistake.message + mistake.look for mistake in checks.EXERCISES[name].mistakes]
    said += [message_of(name, function) for function in (stub, broken, lambda *arguments: None, lambda *arguments: 0)]
    assert not [(answer, text) for answer in answers for text in said if answer in re.sub(r"\s", "", text)]


# ---- what is not in any table ---------------------------------------------------------------------------------------


def stub(*arguments):
    raise NotImplementedError("your turn")


def broken(*arguments):
    numbers = []
    return numbers[3]


decorated = pytest.mark.parametrize("decorate", [lambda function: function, torch.no_grad()], ids=["plain", "decorated"])


@decorated
@pytest.mark.parametrize("name", NAMES)
def test_a_stub_is_not_written_yet(name, decorate):
    assert message_of(name, decorate(stub)).startswith(f"{name}: not written yet")


@decorated
@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_named_with_the_students_line(name, decorate):
    message = message_of(name, decorate(broken))
    assert "IndexError: list index out of range, at line " in message and ": `return numbers[3]`" in message


@pytest.mark.parametrize("name", NAMES)
def test_none_and_odd_results_are_named(name):
    assert "returned None: is there a `return` at the end? Look at" in message_of(name, lambda *arguments: None)
    assert "it returned a str; what is wanted is " in message_of(name, lambda *arguments: "done")


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_called_is_said(name):
    assert "the function itself, without calling it; this is a float" in message_of(name, 3.5)
    parameters = ", ".join(checks.EXERCISES[name].parameters)
    assert f"other arguments than {name}({parameters})" in message_of(name, lambda: None)


@pytest.mark.parametrize("name, function, fragment", [
    ("distillation_loss", lambda z, t, total: losses.distillation_loss(z.double(), t.double(), total), "dtype float64"),
    ("distillation_loss", lambda z, t, total: losses.distillation_loss(z, t, total).item(), "it returned a float"),
    ("distillation_loss", lambda z, t, total: losses.distillation_loss(z, t, total) * 1.1, "too large"),
    ("prune", lambda *arguments: list(masks.prune(*arguments).values()), "it returned a list of 2"),
    ("prune", prune_like(dtype=np.int64), "has dtype int64 and should have uint8"),
    ("active", lambda mask, step: masks.active(mask, step).flatten(), "shape (12,) and should have (3, 4)"),
    ("active", lambda mask, step: mask.masked_fill_(mask > step, 0) > 0, "changed its argument `mask`"),
    ("multi_model_plan", lambda columns: [(j, [*own]) for j, own in targets.own_step(columns)], "of pairs (step of"),
    ("multi_model_targets", lambda *arguments: targets.target_matrix(*arguments)[0], "a tensor of shape (2, 6, 10)"),
    ("reconstruct", lambda past, step: past.state(step) | {"more": torch.ones(1)}, "an entry 'more' that does not belong"),
    ("reconstruct", lambda past, step: IncrementalNet("resnet8", 3, True, 0), "it returned an IncrementalNet"),
    ("average_incremental_accuracy", torch.tensor, "it returned a tensor of shape"),
    ("forgetting", lambda rows: 1.5, "too small"),
    ("herding", lambda features, count: exemplars.herding(features, count).tolist(), "it returned a list of 5"),
    ("herding", lambda features, count: exemplars.herding(features.mul_(2), count), "changed its argument `features`"),
    ("nearest_mean", lambda *arguments: mean_in_loops(*arguments).int(), "has dtype int32 and should have int64"),
])
def test_an_unknown_mistake_still_gets_a_helpful_line(name, function, fragment):
    message = message_of(name, function)
    assert fragment in message and "Look at" in message
    assert not any(mistake.message in message for mistake in checks.EXERCISES[name].mistakes)


def test_a_teacher_in_train_mode_is_seen_image_by_image_too():
    def one_by_one(plan, teacher_of, images, labels, classes):
        build = targets_like(mode=lambda teacher: teacher.train())
        pairs = [build(plan, teacher_of, images[i:i + 1], labels[i:i + 1], classes) for i in range(len(images))]
        return tuple(torch.cat(parts, 1) for parts in zip(*pairs, strict=True))
    assert "train mode" in message_of("multi_model_targets", one_by_one)


# ---- how it is said -------------------------------------------------------------------------------------------------


def test_each_case_has_its_line_and_the_failing_ones_say_so(capsys):
    message_of("active", lambda mask, step: mask > 0)
    assert [line[:9].strip() for line in capsys.readouterr().out.splitlines()] == ["not yet", "not yet", "passed"]


def test_jupyter_shows_one_line_instead_of_a_traceback():
    with pytest.raises(M2KDError) as caught:
        checks.active(lambda mask, step: mask > 0)
    (line,) = caught.value._render_traceback_()
    assert line.startswith("NotYet: active: every weight that has an owner") and "\n" not in line


def test_a_check_leaves_no_trace_in_global_state():
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    with torch.no_grad():                           # a student may have switched gradients off around the cell
        for name in NAMES:
            getattr(checks, name)(LIBRARY[name])
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["multi_model_targets", "reconstruct", "prune", "auxiliary_loss"])
def test_even_an_unknown_mistake_is_told_in_two_seconds(name, capsys):
    begun = time.process_time()
    message_of(name, lambda *arguments: "none of the known mistakes")
    assert time.process_time() - begun < 2


def test_comparison_says_where_and_which_way():
    a, b = torch.zeros(2, 3), torch.zeros(2, 3)
    a[1, 2] = 0.5
    assert differs(a, b, 0.0, "main") == "main differs at 1 of 6 places, first at [1, 2]: yours is 0.5, which is too large"
    assert differs(b * math.nan, b, 0.0).endswith("yours is nan, which is not a finite number")
    assert same(b * math.nan, b * math.nan) and same(a, a + 1e-6, 1e-4) and not same(a, b)
    assert unlike(a.int(), b) == "the result has dtype int32 and should have float32"
    assert same({"x": [a]}, {"x": [a.clone()]})
    assert unlike({"x": 1}, {}) == "the result has an entry 'x' that does not belong there"
