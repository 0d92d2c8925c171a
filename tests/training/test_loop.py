"""One update: against a literal reference, and fit to be recorded as a graph although no GPU is needed to say so."""
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from m2kd_lite.method import losses
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.training.loop import TrainingData, Update

CLASSES, OLD, COUNT, BATCH = 6, 4, 24, 8


def objective(logits, auxiliary_logits, main_targets, auxiliary_targets, labels):
    main = losses.distillation_loss(logits, main_targets, CLASSES)
    auxiliary = losses.auxiliary_loss(auxiliary_logits, auxiliary_targets, labels, 0.5, CLASSES)
    return losses.total_loss(main, auxiliary, 1.0)


def new_net():
    net = IncrementalNet("resnet8", 3, True, seed=0)
    net.grow_heads(CLASSES, 1)
    return net.train()


def training_data(images):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(len(images)) % (CLASSES - OLD) + OLD
    return TrainingData(images, labels, torch.rand(2, len(images), CLASSES, generator=generator),
                        torch.rand(2, len(images), OLD, generator=generator))


def new_update(net, data, frozen, weight_decay=0.0, precision="fp32"):
    momenta = {name: torch.zeros_like(parameter) for name, parameter in net.named_parameters()}
    loss_sum = torch.zeros((), dtype=torch.float64, device=data.images.device)
    update = Update(net, data, objective, batch_size=BATCH, frozen=frozen, momenta=momenta, loss_sum=loss_sum, momentum=0.9,
                    weight_decay=weight_decay, precision=precision)
    return update, momenta, loss_sum


def half_frozen(net):
    return {name: torch.arange(weight.numel()).view(weight.shape) % 2 == 0 for name, weight in net.convolutions().items()}


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_updates_against_a_literal_reference(images, weight_decay):
    """Images picked and mirrored one by one, plain SGD written out, frozen weights put back by hand."""
    data, rates = training_data(images[0]), [0.5, 0.5, 0.1]
    net, reference = new_net(), new_net()
    frozen = half_frozen(net) if weight_decay == 0 else {}
    update, momenta, loss_sum = new_update(net, data, frozen, weight_decay)
    draws = torch.Generator().manual_seed(2)
    velocity = {name: torch.zeros_like(p) for name, p in reference.named_parameters()}
    total = 0.0
    for rate in rates:
        rows = torch.randperm(COUNT, generator=draws)[:BATCH]
        flips = torch.randint(0, 2, (BATCH,), generator=draws)
        update.set_rate(rate)
        update(rows, flips)
        batch = torch.stack([data.images[i].flip(2) if f else data.images[i] for i, f in zip(rows, flips, strict=True)])
        pick = lambda matrix: torch.stack([matrix[f, i] for i, f in zip(rows, flips, strict=True)])      # noqa: E731, B023
        loss = objective(*reference(batch), pick(data.main_targets), pick(data.auxiliary_targets), data.labels[rows])
        reference.zero_grad()
        loss.backward()
        total += loss.item()
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                gradient = parameter.grad + weight_decay * parameter
                if name in frozen:
                    gradient[frozen[name]] = 0.0
                velocity[name] = 0.9 * velocity[name] + gradient
                parameter -= rate * velocity[name]
    for (name, ours), theirs in zip(net.state_dict().items(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4, msg=name)
    assert loss_sum.item() == pytest.approx(total, rel=1e-5)
    assert all(not momenta[name][where].any() for name, where in frozen.items())


def test_frozen_weights_do_not_move_by_one_bit_and_the_others_do(images):
    net = new_net()
    frozen = half_frozen(net)
    before = {name: weight.detach().clone() for name, weight in net.convolutions().items()}
    update, _, _ = new_update(net, training_data(images[0]), frozen)
    update.set_rate(1.0)
    for _ in range(3):
        update(torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.int64))
    for name, weight in net.convolutions().items():
        assert torch.equal(weight[frozen[name]], before[name][frozen[name]])
        assert (weight != before[name])[~frozen[name]].float().mean() > 0.9


def without_content(device, images, monkeypatch, after_forward=lambda logits: None):
    """Run an update on tensors that have a shape and a device but no content: any question for a value is an error.

    There is no backward pass on a pretended GPU, so there the gradients are made up, and of the fused SGD only its
    arguments are looked at: numbers that a graph would keep for ever must not be among those that change. On a pretended
    CPU both run, but without the hard labels, whose one-hot coding asks a CPU, and not a GPU, whether they are in range.
    """
    def fake(tensor):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    def made_up(loss):
        for parameter in net.parameters():
            parameter.grad = torch.empty_like(parameter)

    def fused_sgd(*tensors, lr, is_first_step, **rest):
        assert lr.device.type == device and not is_first_step

    net, data = new_net(), training_data(images)
    frozen = half_frozen(net)
    monkeypatch.setattr(Update, "_record", lambda update: update._update)
    if device == "cuda":
        monkeypatch.setattr(torch.Tensor, "backward", made_up)
        monkeypatch.setattr(torch, "_fused_sgd_", fused_sgd)
    else:
        monkeypatch.setattr(losses, "auxiliary_loss", lambda logits, soft, labels, alpha, total: losses.binary_cross_entropy(
            logits[:, :OLD], soft, total))
    with FakeTensorMode():
        for module in net.modules():
            for members in (module._parameters, module._buffers):
                for name, tensor in members.items():
                    if tensor is not None:
                        members[name] = nn.Parameter(fake(tensor)) if members is module._parameters else fake(tensor)
        net.register_forward_hook(lambda module, inputs, outputs: after_forward(outputs[0]))
        update, _, loss_sum = new_update(net, TrainingData(*map(fake, vars(data).values())), {n: fake(f) for n, f in frozen.items()})
        update.set_rate(0.5)
        update(fake(torch.zeros(BATCH, dtype=torch.int64)), fake(torch.zeros(BATCH, dtype=torch.int64)))
        return {tensor.device.type for tensor in [loss_sum, *(p.grad for p in net.parameters())]}


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_an_update_asks_the_device_for_nothing_so_that_a_graph_can_hold_it(device, images, monkeypatch):
    assert without_content(device, images[0], monkeypatch) == {device}


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_check_would_notice_a_question(device, images, monkeypatch):
    with pytest.raises(DataDependentOutputException):
        without_content(device, images[0], monkeypatch, after_forward=lambda logits: logits.sum().item())


def test_an_update_reads_its_draw_from_fixed_places(images):
    """What a graph replays is the same work on the same memory: new draws must arrive by being written there."""
    net, data = new_net(), training_data(images[0])
    update, _, loss_sum = new_update(net, data, {})
    update.set_rate(0.0)                                        # only the batch differs from call to call
    net.eval()
    seen = []
    for start in (0, 8):
        rows, flips = torch.arange(start, start + BATCH), torch.full((BATCH,), start // 8)
        place = update._rows.data_ptr(), update._flips.data_ptr()
        loss_sum.zero_()
        update(rows, flips)
        assert place == (update._rows.data_ptr(), update._flips.data_ptr())
        recorded = loss_sum.item()
        loss_sum.zero_()
        update._update()                                        # what a replay would do
        assert loss_sum.item() == recorded
        seen.append(recorded)
    assert seen[0] != seen[1]


def test_bf16_keeps_fp32_weights_statistics_and_loss(images):
    net, data = new_net(), training_data(images[0])
    kept = []

    def spy(logits, auxiliary_logits, *rest):
        kept.append((logits.dtype, auxiliary_logits.dtype))
        return objective(logits, auxiliary_logits, *rest)

    update, momenta, _ = new_update(net, data, {})
    update._objective, update._precision = spy, "bf16"
    update.set_rate(0.5)
    update(torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.int64))
    assert kept == [(torch.float32, torch.float32)]
    assert {tensor.dtype for tensor in [*net.state_dict().values(), *momenta.values()]} == {torch.float32}


@pytest.mark.system
def test_compiled_gradients_are_as_near_to_fp32_as_those_of_bf16(images, compiler):
    found = {}
    for precision in ("fp32", "bf16", "bf16-compiled"):
        net = new_net()
        update, _, _ = new_update(net, training_data(images[0]), {}, precision=precision)
        update(torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.int64))
        found[precision] = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    plain, compiled = (((found[name] - found["fp32"]).norm() / found["fp32"].norm()).item() for name in ("bf16", "bf16-compiled"))
    assert not torch.equal(found["bf16"], found["bf16-compiled"])           # kernels of its own
    assert 0 < compiled < 1.2 * plain < 0.1
