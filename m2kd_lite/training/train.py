"""The algorithm: one phase, one incremental step, one run.

For each step: grow the heads; fill the target matrix from the teachers; train on the new classes; where the method
prunes, keep the largest free weights, fine-tune them, and freeze them (section 3.3); remember the model; measure.
What differs between methods is a row of `method/table.py`. Called by the command line and the notebooks.
"""
from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from m2kd_lite.config import SMOKE, RunConfig, smoke_sized, smoke_wanted
from m2kd_lite.data.shards import Images
from m2kd_lite.data.stream import ClassStream
from m2kd_lite.errors import TIME_LIMIT, BadInput, DamagedFile, Diverged, Interrupted
from m2kd_lite.events import OnEvent, ignore
from m2kd_lite.method import exemplars, losses, masks, painter_file, scaled
from m2kd_lite.method.nets import IncrementalNet
from m2kd_lite.method.table import METHODS, Method, check_possible
from m2kd_lite.method.targets import asker
from m2kd_lite.training import draws, measure, paint, quality, witness
from m2kd_lite.training.device import autocast, describe_environment, prepare_device
from m2kd_lite.training.feed import placed
from m2kd_lite.training.loop import Ask, TrainingData, Update
from m2kd_lite.training.rundir import FinishedRun, RunFolder, check_usable, drop_checkpoint, is_finished, read_run
from m2kd_lite.training.state import Position, State

CHECKPOINT_SECONDS = 30.0
REPORT_SECONDS = 0.25
DEFAULT_LR = RunConfig.model_fields["lr"].default       # the paper's; a rate above it is not worth a quarter of itself


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
    if smoke_wanted() and not (is_finished(out) and read_run(out).config == config):
        config = smoke_sized(config)
        on_event({"event": "notice", "text": f"{SMOKE} is set: one epoch of a few images, whose numbers mean nothing"})
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
        done = read_run(out) if is_finished(out) else None
        if done and done.config == self.config:
            return self._leave(done)
        self.stream = ClassStream.of_run(self.config, self.on_event)
        self.last = self.stream.last_step(self.config.steps)
        if done:
            self._check_images(done.path, done.metrics["data_sha256"])
            if done.config.steps == self.config.steps:          # only the images have moved
                return self._leave(done)
        check_possible(self.method, self.config, self.stream.train_images.shape, len(self.stream.class_names), self.last)
        with RunFolder(out, self.config, resume) as self.folder:
            self._start()
            while self.state.position.step <= self.last:
                self.step()
            return self._finish()

    def _leave(self, done: FinishedRun) -> dict:
        """A finished run stays as it is."""
        if done.is_complete:
            drop_checkpoint(done.path)          # a run that was killed between its last two acts left it
        self.on_event({"event": "run", "state": "already finished", "folder": str(done.path)})
        return done.metrics

    def _start(self) -> None:
        """A new state, or the one of the folder's checkpoint."""
        self._begun = self._saved = self._reported = time.monotonic()
        stored = self.folder.load_checkpoint(self.on_event, self.device)
        if stored is None:
            self.state = State.new(self.config, self.method, self.stream, self.device)
        else:
            tensors, notes, past = stored
            self._check_images(self.folder.path, notes["data_sha256"])
            try:
                self.state = State.from_tensors(tensors, notes, past, self.config, self.method, self.stream, self.device)
            except (KeyError, ValueError) as error:
                raise DamagedFile(f"{self.folder.path / 'checkpoint'}: not a checkpoint of this run ({error})") from None
        self.folder.adopt(self.config)
        for what, was, now in self.state.goes_on_in(describe_environment(self.device, self.precision)):
            self.on_event({"event": "notice", "text": f"{what}: {was} so far, {now} from here on; the numbers will differ from an "
                                                      "undisturbed run's"})
        self.on_event({"event": "run", "state": "resumed" if stored else "started", "folder": str(self.folder.path)})

    def _check_images(self, path: Path, began_with: str) -> None:
        if began_with != self.stream.sha256:
            raise BadInput(f"{path}: this run began with other images (SHA-256 {began_with[:12]}, now {self.stream.sha256[:12]}); "
                           "it cannot continue with these")

    def _finish(self) -> dict:
        state, path = self.state, self.folder.path
        state.past.save(path / "snapshots.safetensors")
        witness.Witness(witness.rows_of(len(self.stream.test_images)), tuple(state.live)).save(path / witness.FILE)
        painter_file.save(state.painter, path / painter_file.FILE)
        content = measure.of_run(state, self.stream, self.config, self.method) | quality.of_run(
            state.painter, self.stream, self.config, self.precision) | {"wall_seconds": self._wall()}
        self.folder.finish(content, complete=self.last == len(self.stream))
        self.on_event({"event": "run", "state": "finished", "folder": str(path)})
        return content

    # ---- an incremental step ----------------------------------------------------------------------------------------

    def step(self) -> None:
        state, position = self.state, self.state.position
        columns = self.stream.columns[:position.step]
        images, labels = self.images()
        images, labels = placed(images, self.device, self.on_event), labels.to(self.device)
        if state.net.main.out_features < columns[-1].stop:
            state.net.grow_heads(columns[-1].stop, position.step)
            if state.walk:
                state.walk.fit()
        ask = self.asking(columns) if self.config.augment == "crop" else None
        main_targets, auxiliary_targets = self.soft_targets(images, labels, columns)
        training = TrainingData(images, labels, main_targets, auxiliary_targets[:, :, :columns[-1].start])

        if position.phase == "train":
            movable = {name: masks.free(mask) for name, mask in state.masks.items()}
            self.phase(training, movable, self.config.epochs, self.config.learning_rate, ask)
            if self.method.prunes:
                state.masks = self.method.prune(state.net.convolutions(), state.masks, position.step, self.config.pruning_ratio)
                self._enter("finetune")
            else:
                self._enter("paint" if state.painter else "done")
        if position.phase == "finetune":
            movable = {name: mask == position.step for name, mask in state.masks.items()}
            self.phase(training, movable, self.config.finetune_epochs, self.config.finetune_rate, ask)
            self._enter("done")
        if position.phase == "paint":
            self.paint(images, labels)
            self._enter("done")

        state.past.add(state.net, state.masks)
        paint.end_step(state.painter, self.config, columns)
        if state.walk:
            state.walk.end_step(first=position.step == 1)
        if self.method.keeps_exemplars:
            with autocast(self.device, self.precision):
                state.exemplars = exemplars.after_step(state.exemplars, state.net.eval(), self.stream, position.step,
                                                       self.config.exemplars)
        self._measure(training)
        watched = list(witness.rows_of(len(self.stream.test_images)))
        state.live.append(witness.logits_of(state.net, self.stream.test_images[watched]))
        self.on_step(position.step, state.net)
        state.position, state.duel = Position(step=position.step + 1), None
        state.seconds["train"] = state.seconds["teacher"] = 0.0
        self.save_checkpoint()

    def images(self) -> tuple[Images, Tensor]:
        """What this step trains on: the new classes; and all old images, exemplars or drawn ones, where the method has them."""
        new = self.stream.new_rows(self.state.position.step, all_seen=self.method.memory == "all images")
        images, labels = self.stream.train_rows([new, *self.state.exemplars])
        return paint.with_old(images, labels, self.state.painter, self.config, self.stream.columns[:self.state.position.step])

    def soft_targets(self, images: Images, labels: Tensor, columns: tuple[range, ...]) -> tuple[Tensor, Tensor]:
        """The target matrices of this step. Filled again after a resume: the same teachers give the same bits."""
        begun = time.monotonic()
        plan = [] if self.config.augment == "crop" else self.method.teachers(columns)
        asked = iter(range(1, len(plan) + 1))

        def teacher(step: int) -> IncrementalNet:
            self._maybe_checkpoint()            # many teachers of many images take their time
            self._progress(f"step {self.state.position.step}: soft targets, teacher", next(asked, len(plan)), len(plan))
            model = self.state.past.reconstruct(step, self.method.rebuild)
            assert isinstance(model, IncrementalNet)
            return model

        with autocast(self.device, self.precision):
            filled = self.method.fill(plan, teacher, images, labels, columns[-1].stop)
        self.state.seconds["teacher"] += time.monotonic() - begun
        return filled

    def asking(self, columns: tuple[range, ...]) -> Ask:
        """Gives the targets of a batch of crops: all teachers of the step are kept, and asked in every batch."""
        plan = self.method.teachers(columns)
        return asker(plan, {step: self.state.past.reconstruct(step, self.method.rebuild) for step, _ in plan}, columns[-1])

    def _measure(self, training: TrainingData) -> None:
        """Test the live model on all classes seen, and count the bytes that the method carries on."""
        with autocast(self.device, self.precision):
            result = measure.of_step(self.state, self.stream, self.config, self.method, training)
        self.state.results.append(result)
        self.on_event({"event": "step", "step": result["step"], "steps": len(self.stream), "top1": result["top1"],
                       "top5": result["top5"], "accuracy_by_step": result["accuracy_by_step"],
                       "seconds": result["train_seconds"] + result["teacher_seconds"]})

    # ---- a phase ----------------------------------------------------------------------------------------------------

    def phase(self, data: TrainingData, movable: dict[str, Tensor], epochs: int, rate: Callable[[int], float],
              ask: Ask | None) -> None:
        """Train for `epochs` epochs, from where the position says.

        Parameters
        ----------
        data : what the step trains on.
        movable : per convolution, where its weights may move; empty where all may.
        rate : learning rate of an epoch.
        ask : gives the targets of a batch of crops; None where `data` has them.
        """
        state, config, position = self.state, self.config, self.state.position
        count, kinds = len(data.images), paint.kinds(state.painter, data.labels, self.stream.columns[position.step - 1])
        batch_size, batches = draws.batches(config, *kinds)
        if not state.momenta:       # a fresh optimizer for every phase: stale momentum would move frozen weights
            state.momenta = {name: torch.zeros_like(parameter) for name, parameter in state.net.named_parameters()}
        # Section 4.1: weight decay in step 1 only.
        update = Update(state.net.train(), data, self.objective, batch_size=batch_size,
                        frozen={name: ~may_move for name, may_move in movable.items()}, momenta=state.momenta,
                        loss_sum=state.loss_sum, momentum=config.momentum,
                        weight_decay=config.weight_decay if position.step == 1 else 0.0, precision=self.precision,
                        walk=state.walk, ask=ask)

        def updates(epoch: int, done: int) -> Iterator[int]:
            drawn = draws.apart(draws.of_epoch(config, position.step, position.phase, epoch, count), kinds, batch_size)
            if isinstance(data.images, Tensor):             # rows of images on disk are read here
                drawn = tuple(part.to(self.device) for part in drawn)
            update.set_rate(rate(epoch))
            for batch in range(done + 1, batches + 1):
                rows = slice((batch - 1) * batch_size, batch * batch_size)
                following = slice(rows.stop, rows.stop + batch_size) if batch < batches else None
                update(*(part[rows] for part in drawn), coming=None if following is None else drawn[0][following])
                yield batch

        self._epochs(updates, batches, batch_size, epochs, rate)

    def paint(self, images: Images, labels: Tensor) -> None:
        """Teach the painter the new classes; the drawn images of old ones, behind them, are for its critic."""
        lesson = paint.Lesson(self.state, images, labels, self.config, self.stream.columns[self.state.position.step - 1])
        self._epochs(lesson.epoch, lesson.batches, lesson.size, self.config.generator_epochs, lesson.rate)

    def _epochs(self, updates: Callable[[int, int], Iterable[int]], batches: int, size: int, epochs: int, rate: Callable[[int], float]) -> None:
        """Make the updates of all epochs, from where the position says: `updates` makes those of one, and yields how many have been made."""
        state, position = self.state, self.state.position
        while position.epoch < epochs:
            begun, first = time.monotonic(), position.batch
            if first == 0:
                state.loss_sum.zero_()
            for batch in updates(position.epoch, first):
                position.batch = batch
                self._progress(f"step {position.step}, {position.phase}", position.epoch * batches + batch, epochs * batches)
                if batch < batches:
                    self._maybe_checkpoint(begun)
            seconds = time.monotonic() - begun
            state.seconds["train"] += seconds
            self._report_epoch(epochs, rate(position.epoch), state.loss_sum.item() / batches, seconds, (batches - first) * size)
            position.epoch, position.batch = position.epoch + 1, 0
            self._maybe_checkpoint()

    def objective(self, logits: Tensor, auxiliary_logits: Tensor | None, main_targets: Tensor,
                  auxiliary_targets: Tensor, labels: Tensor) -> Tensor:
        """Eq. 4 on a batch; or, for a method of softmax, its own loss."""
        total = len(self.stream.class_names) if self.config.normaliser == "all" else logits.shape[1]
        if self.method.softmax:
            return scaled.loss(logits, main_targets, auxiliary_targets, total)
        main = self.method.main_loss(logits, main_targets, total)
        if auxiliary_logits is None:
            return main
        auxiliary = self.method.auxiliary_loss(auxiliary_logits, auxiliary_targets, labels, self.config.alpha, total)
        return losses.total_loss(main, auxiliary, self.config.lambda_aux)

    def _report_epoch(self, epochs: int, rate: float, loss: float, seconds: float, images: int) -> None:
        position = self.state.position
        if not math.isfinite(loss):
            tip = "another --seed" if position.phase == "paint" else f"--lr {min(self.config.lr / 4, DEFAULT_LR):g}"
            raise Diverged(f"the loss is {loss} in step {position.step}, {position.phase} epoch {position.epoch + 1}, "
                           f"at learning rate {rate:g}; try {tip}")
        if position.phase != "paint":
            self.state.step_loss = loss
        event = {"event": "epoch", "step": position.step, "steps": len(self.stream), "phase": position.phase,
                 "epoch": position.epoch + 1, "epochs": epochs, "lr": rate, "loss": loss,
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
            why = "the time limit is reached" if status == TIME_LIMIT else "stopped"
            raise Interrupted(f"{why}; go on with: m2kd-lite run --out {shlex.quote(str(self.folder.path))} --resume", status)

    def save_checkpoint(self) -> None:
        """Write the whole state as one generation."""
        self.state.serial += 1
        tensors, notes = self.state.to_tensors()
        notes["seconds"]["wall"] = self._wall()
        self.folder.save_checkpoint(tensors, notes | {"data_sha256": self.stream.sha256}, self.state.past)
        self._saved = time.monotonic()

    def _wall(self) -> float:
        return self.state.seconds["wall"] + time.monotonic() - self._begun
