"""The algorithm: one phase, one incremental step, one run.

For each step: grow the heads; fill the target matrix from the teachers; train on the new classes; where the method
prunes, keep the largest free weights, fine-tune them, and freeze them (section 3.3); remember the model; measure.
What differs between methods is a row of `methods.py`. Called by the command line and the notebooks.
"""
from __future__ import annotations

import functools
import math
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from m2kd_lite import draws, exemplars, losses, masks, metrics, scaled, snapshots, witness
from m2kd_lite.config import RunConfig
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.device import autocast, describe_environment, prepare_device
from m2kd_lite.errors import BadInput, DamagedFile, Diverged, Interrupted
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.loop import TrainingData, Update
from m2kd_lite.methods import METHODS, Method
from m2kd_lite.nets import IncrementalNet, convolution_sizes
from m2kd_lite.rundir import RunFolder, check_usable, drop_checkpoint, is_finished, read_run
from m2kd_lite.state import Position, State

CHECKPOINT_SECONDS = 30.0
REPORT_SECONDS = 0.25


def run(config: RunConfig, out: Path, *, resume: bool = False, method: Method | None = None,
        on_event: OnEvent = ignore, on_step: Callable[[int, IncrementalNet], None] = lambda step, net: None,
        should_stop: Callable[[], int | None] = lambda: None) -> dict:
    """Train one method over all incremental steps, into a run folder.

    Parameters
    ----------
    config : what to run.
    out : the run folder; must not hold anything, unless `resume`.
    resume : go on from the folder's checkpoint; a finished run is left as it is.
    method : a row to use in place of `METHODS[config.method]`, for lessons that exchange one of its functions.
    on_event : receives events (`events.py`).
    on_step : called when a step has ended, with its number and the live network in eval mode, to look at, not to
        change. A resumed run does not call it for the steps it finds done.
    should_stop : asked after every batch; a number makes the run write a checkpoint and raise `Interrupted` with that
        exit status. A file named `stop` in the run folder does the same.

    Returns
    -------
    the content of metrics.json.

    Raises
    ------
    BadInput, DamagedFile, LayerExhausted, Diverged, Interrupted : see `errors.py`.
    """
    return _Run(config, method or METHODS[config.method], on_event, on_step, should_stop).into(Path(out), resume)


class _Run:
    """One call of `run`. The state is a `State`; this class only carries what every part of the loop needs."""

    def __init__(self, config: RunConfig, method: Method, on_event: OnEvent, on_step, should_stop):
        self.config, self.method = config, method
        self.on_event, self.on_step, self.should_stop = on_event, on_step, should_stop
        self.device, self.precision = prepare_device(config, on_event)

    # ---- a run ------------------------------------------------------------------------------------------------------

    def into(self, out: Path, resume: bool) -> dict:
        check_usable(out, self.config, resume)
        if is_finished(out):
            drop_checkpoint(out)        # a run that was killed between its last two acts left it
            self.on_event({"event": "run", "state": "already finished", "folder": str(out)})
            return read_run(out).metrics
        self.stream = ClassStream.of_run(self.config, self.on_event)
        if self.method.keeps_exemplars:
            exemplars.check_budget(self.config.exemplars, len(self.stream.class_names))
        if self.method.prunes:
            masks.check_lasting(convolution_sizes(self.config.backbone, self.stream.train_images.shape[1]), len(self.stream),
                                self.config.pruning_ratio)
        with RunFolder(out, self.config, resume) as self.folder:
            self._start()
            while self.state.position.step <= len(self.stream):
                self.step()
            return self._finish()

    def _start(self) -> None:
        """A new state, or the one of the folder's checkpoint."""
        self._begun = self._saved = self._reported = time.monotonic()
        stored = self.folder.load_checkpoint(self.on_event, self.device)
        if stored is None:
            self.state = State.new(self.config, self.method, self.stream, self.device)
        else:
            tensors, notes, past = stored
            if notes["data_sha256"] != self.stream.sha256:
                raise BadInput(f"{self.folder.path}: this run began with other images (SHA-256 "
                               f"{notes['data_sha256'][:12]}, now {self.stream.sha256[:12]}); it cannot go on with these")
            for what, now in self._arithmetic().items():
                was = notes["arithmetic"].get(what)
                if was != now:
                    self.on_event({"event": "notice", "text": f"begun with {was} {what}, going on with {now}: "
                                   "the numbers will differ from an undisturbed run's"})
            try:
                self.state = State.from_tensors(tensors, notes, past, self.config, self.method, self.stream, self.device)
            except (KeyError, ValueError) as error:
                raise DamagedFile(f"{self.folder.path / 'checkpoint'}: not a checkpoint of this run ({error})") from None
        self.on_event({"event": "run", "state": "resumed" if stored else "started", "folder": str(self.folder.path)})

    def _finish(self) -> dict:
        state = self.state
        state.past.save(self.folder.path / "snapshots.safetensors")
        witness.Witness(witness.rows_of(len(self.stream.test_images)), tuple(state.live)).save(self.folder.path / witness.FILE)
        per_step = [{"step": result["step"], **result.pop("bytes")} for result in state.results]
        top1 = [result["top1"] for result in state.results]
        content = {
            "schema": 1,
            "config": self.config.model_dump(mode="json"),
            "environment": describe_environment(self.device, self.precision),
            "data_sha256": self.stream.sha256,
            "class_names": list(self.stream.class_names),
            "steps": state.results,
            "average_incremental_accuracy": metrics.average_incremental_accuracy(top1),
            "final_accuracy": top1[-1],
            "forgetting": metrics.forgetting([result["accuracy_by_step"] for result in state.results]),
            "bytes": {"per_step": per_step, "total": per_step[-1]["total"],
                      "added": per_step[-1]["total"] - per_step[0]["total"]},
            **({"exemplars": exemplars.inventory(state.exemplars, self.stream)} if self.method.keeps_exemplars else {}),
            "wall_seconds": self._wall(),
        }
        self.folder.finish(content)
        self.on_event({"event": "run", "state": "finished", "folder": str(self.folder.path)})
        return content

    # ---- an incremental step ----------------------------------------------------------------------------------------

    def step(self) -> None:
        state, position = self.state, self.state.position
        columns = self.stream.columns[:position.step]
        images, labels = (part.to(self.device) for part in self.images())
        if state.net.main.out_features < columns[-1].stop:
            state.net.grow_heads(columns[-1].stop, position.step)
            if state.walk:
                state.walk.fit()
        main_targets, auxiliary_targets = self.soft_targets(images, labels, columns)
        training = TrainingData(images, labels, main_targets, auxiliary_targets[:, :, :columns[-1].start])

        if position.phase == "train":
            movable = {name: masks.free(mask) for name, mask in state.masks.items()}
            self.phase(training, movable, self.config.epochs, self.config.learning_rate)
            if self.method.prunes:
                state.masks = self.method.prune(state.net.convolutions(), state.masks, position.step, self.config.pruning_ratio)
                self._enter("finetune")
            else:
                self._enter("done")
        if position.phase == "finetune":
            movable = {name: mask == position.step for name, mask in state.masks.items()}
            self.phase(training, movable, self.config.finetune_epochs, lambda epoch: self.config.finetune_rate())
            self._enter("done")

        state.past.add(state.net, state.masks)
        if state.walk:
            state.walk.end_step(first=position.step == 1)
        if self.method.keeps_exemplars:
            with autocast(self.device, self.precision):
                state.exemplars = exemplars.after_step(state.exemplars, state.net.eval(), self.stream, position.step,
                                                       self.config.exemplars)
        self._measure(columns, training)
        watched = list(witness.rows_of(len(self.stream.test_images)))
        state.live.append(witness.logits_of(state.net, self.stream.test_images[watched]))
        self.on_step(position.step, state.net)
        state.position = Position(step=position.step + 1)
        state.seconds["train"] = state.seconds["teacher"] = 0.0
        self.save_checkpoint()

    def images(self) -> tuple[Tensor, Tensor]:
        """What this step trains on: the new classes; and all old images, or the exemplars, where the method has them."""
        new = self.stream.train(self.state.position.step, all_seen=self.method.memory == "all images")
        if not self.state.exemplars:
            return new
        old = self.stream.train_rows(self.state.exemplars)
        return torch.cat([new[0], old[0]]), torch.cat([new[1], old[1]])

    def soft_targets(self, images: Tensor, labels: Tensor, columns: tuple[range, ...]) -> tuple[Tensor, Tensor]:
        """The target matrices of this step. Filled again after a resume: the same teachers give the same bits."""
        begun = time.monotonic()
        plan = self.method.teachers(columns)
        asked = iter(range(1, len(plan) + 1))

        def teacher(step: int) -> IncrementalNet:
            self._progress(f"step {self.state.position.step}: soft targets, teacher", next(asked, len(plan)), len(plan))
            return self.state.past.reconstruct(step, self.method.rebuild)

        with autocast(self.device, self.precision):
            filled = self.method.fill(plan, teacher, images, labels, columns[-1].stop)
        self.state.seconds["teacher"] += time.monotonic() - begun
        return filled

    def _measure(self, columns: tuple[range, ...], training: TrainingData) -> None:
        """Test the live model on all classes seen, and count the bytes that the method carries on."""
        state = self.state
        images, labels = (part.to(self.device) for part in self.stream.test(state.position.step))
        with autocast(self.device, self.precision):
            best, notes = self.decide(images, training)
            if self.method.decision != "argmax":
                network = metrics.step_results(metrics.predict(state.net, images), labels, columns)
                notes["network"] = {name: network[name] for name in ("top1", "top5", "accuracy_by_step")}
        stored_images = len(training.images) if self.method.memory == "all images" else sum(map(len, state.exemplars))
        result = {"step": state.position.step, **metrics.step_results(best, labels, columns), **notes,
                  "train_seconds": state.seconds["train"], "teacher_seconds": state.seconds["teacher"],
                  "loss": state.step_loss,
                  "bytes": snapshots.ledger(state.past, self.method.memory, stored_images * images[0].numel(),
                                            state.walk.carried_bytes() if state.walk else 0)}
        state.results.append(result)
        self.on_event({"event": "step", "step": state.position.step, "steps": len(self.stream), "top1": result["top1"],
                       "top5": result["top5"], "accuracy_by_step": result["accuracy_by_step"],
                       "seconds": state.seconds["train"] + state.seconds["teacher"]})

    def decide(self, images: Tensor, training: TrainingData) -> tuple[Tensor, dict]:
        """The likeliest classes of test images, best first, as the method chooses them; and what it looked at besides."""
        net = self.state.net.eval()
        if self.method.decision == "nearest class mean":
            kept, labels = (part.to(self.device) for part in self.stream.train_rows(self.state.exemplars))
            means = exemplars.class_means(net, kept, labels, len(self.state.exemplars))
            return exemplars.nearest(exemplars.normalised_features(net, images), means), {}
        if self.method.decision == "rescaled":
            drawn = draws.of_training(self.config, self.state.position.step, len(training.images))
            asked = scaled.asked_for(training.main_targets, training.auxiliary_targets, drawn)
            rescaled = functools.partial(scaled.scores, asked=asked)
            return metrics.predict(net, images, scores=rescaled), {"asked_for": asked.tolist()}
        return metrics.predict(net, images), {}

    # ---- a phase ----------------------------------------------------------------------------------------------------

    def phase(self, data: TrainingData, movable: dict[str, Tensor], epochs: int, rate: Callable[[int], float]) -> None:
        """Train for `epochs` epochs, from where the position says.

        Parameters
        ----------
        data : what the step trains on.
        movable : per convolution, where its weights may move; empty where all may.
        rate : learning rate of an epoch.
        """
        state, config, position = self.state, self.config, self.state.position
        count = len(data.images)
        batch_size, batches = draws.batches(config, count)
        if not state.momenta:       # a fresh optimizer for every phase: stale momentum would move frozen weights
            state.momenta = {name: torch.zeros_like(parameter) for name, parameter in state.net.named_parameters()}
        # Section 4.1: weight decay in step 1 only.
        update = Update(state.net.train(), data, self.objective, batch_size=batch_size,
                        frozen={name: ~may_move for name, may_move in movable.items()}, momenta=state.momenta,
                        loss_sum=state.loss_sum, momentum=config.momentum,
                        weight_decay=config.weight_decay if position.step == 1 else 0.0, precision=self.precision,
                        walk=state.walk)
        while position.epoch < epochs:
            begun = time.monotonic()
            order, flips = (drawn.to(self.device) for drawn in
                            draws.of_epoch(config, position.step, position.phase, position.epoch, count))
            update.set_rate(rate(position.epoch))
            if position.batch == 0:
                state.loss_sum.zero_()
            first = position.batch
            for position.batch in range(first + 1, batches + 1):
                rows = slice((position.batch - 1) * batch_size, position.batch * batch_size)
                update(order[rows], flips[rows])
                self._progress(f"step {position.step}, {position.phase}",
                               position.epoch * batches + position.batch, epochs * batches)
                if position.batch < batches:
                    self._maybe_checkpoint(begun)
            state.step_loss = state.loss_sum.item() / batches
            seconds = time.monotonic() - begun
            state.seconds["train"] += seconds
            self._report_epoch(epochs, rate(position.epoch), seconds, (batches - first) * batch_size)
            position.epoch, position.batch = position.epoch + 1, 0
            self._maybe_checkpoint()

    def objective(self, logits: Tensor, auxiliary_logits: Tensor | None, main_targets: Tensor,
                  auxiliary_targets: Tensor, labels: Tensor) -> Tensor:
        """Eq. 4 on a batch; or, for a method of softmax, its own loss."""
        total = len(self.stream.class_names)
        if self.method.softmax:
            return scaled.loss(logits, main_targets, auxiliary_targets, total)
        main = self.method.main_loss(logits, main_targets, total)
        if auxiliary_logits is None:
            return main
        auxiliary = self.method.auxiliary_loss(auxiliary_logits, auxiliary_targets, labels, self.config.alpha, total)
        return losses.total_loss(main, auxiliary, self.config.lambda_aux)

    def _report_epoch(self, epochs: int, rate: float, seconds: float, images: int) -> None:
        position = self.state.position
        if not math.isfinite(self.state.step_loss):
            raise Diverged(f"the loss is {self.state.step_loss} in step {position.step}, {position.phase} epoch "
                           f"{position.epoch + 1}, at learning rate {rate:g}; try --lr {self.config.lr / 4:g}")
        event = {"event": "epoch", "step": position.step, "steps": len(self.stream), "phase": position.phase,
                 "epoch": position.epoch + 1, "epochs": epochs, "lr": rate, "loss": self.state.step_loss,
                 "seconds": round(seconds, 3), "images_per_second": round(images / max(seconds, 1e-9), 1)}
        self.folder.log(event)
        self.on_event(event)

    def _enter(self, phase: str) -> None:
        position = self.state.position
        position.phase, position.epoch, position.batch = phase, 0, 0
        self.state.momenta = {}
        self.save_checkpoint()

    def _progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS or done == total:
            self._reported = now
            self.on_event({"event": "progress", "what": what, "done": done, "total": total})

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def _maybe_checkpoint(self, epoch_begun: float | None = None) -> None:
        """Every 30 seconds, and when asked to stop. Mid-epoch, the seconds since `epoch_begun` are counted first."""
        status = self.should_stop()
        if status is None and self.folder.stop_asked():
            status = Interrupted.exit_status
        if status is None and time.monotonic() - self._saved < CHECKPOINT_SECONDS:
            return
        spent = time.monotonic() - epoch_begun if epoch_begun is not None else 0.0
        self.state.seconds["train"] += spent
        self.save_checkpoint()
        self.state.seconds["train"] -= spent
        if status is not None:
            raise Interrupted(f"stopped; go on with: m2kd-lite run --out {shlex.quote(str(self.folder.path))} --resume", status)

    def save_checkpoint(self) -> None:
        """Write the whole state as one generation."""
        self.state.serial += 1
        tensors, notes = self.state.to_tensors()
        notes["seconds"]["wall"] = self._wall()
        self.folder.save_checkpoint(tensors, notes | {"data_sha256": self.stream.sha256, "arithmetic": self._arithmetic()},
                                    self.state.past)
        self._saved = time.monotonic()

    def _arithmetic(self) -> dict:
        """What the bits of a result depend on beside the settings; read as "begun with 2 threads"."""
        return {"threads": torch.get_num_threads(), "precision": self.precision}

    def _wall(self) -> float:
        return self.state.seconds["wall"] + time.monotonic() - self._begun
