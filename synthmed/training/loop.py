"""The training loop of both stages: exact resume, EMA, held-out losses, early stopping.

Everything random in a step is a pure function of the seed and the step's number, so a run that was killed and
resumed passes through the same weights as one that was not. It is drawn for the whole batch, of which each of many
processes takes its share, so their number changes no more than the order of floating-point sums.
"""

from __future__ import annotations

import math
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from synthmed import processes
from synthmed.config import UNRECORDED, TrainingConfig
from synthmed.errors import TrainingDiverged
from synthmed.models.sharding import is_sharded, split, whole
from synthmed.training.journal import Journal
from synthmed.training.resume import TrainingState, load_state, save_state
from synthmed.training.schedule import batch_indices, ema_decay, learning_rate, seeded, step_generator

# A run of some hundred steps is shorter than the usual second moment remembers (0.999).
_BETAS = (0.9, 0.99)
_COLUMNS = ("loss", "learning_rate", "gradient_norm", "seconds")


class Companion(Protocol):
    """A second network that learns beside the first, such as a discriminator."""

    def update(self) -> None:
        """Take one optimiser step after the main network's."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resume needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""


@dataclass(frozen=True)
class Task:
    """What a stage brings to the loop.

    Attributes
    ----------
    stage : str
    count : int
        Training cases.
    loss : callable
        ``(model, case indices, generator, step) -> loss``, a scalar tensor: draws for all cases of the step, and
        averages over this process's `synthmed.processes.share` of them.
    evaluate : callable
        ``(model) -> measurements``, deterministic, with ``"train_loss"`` and ``"holdout_loss"`` of like cases.
    measurements : tuple of str
        The keys that `evaluate` returns.
    identity : mapping
        What must be equal for a checkpoint to be resumed.
    companion : Companion, optional
    """

    stage: str
    count: int
    loss: Callable[[nn.Module, Tensor, torch.Generator, int], Tensor]
    evaluate: Callable[[nn.Module], dict[str, float]]
    measurements: tuple[str, ...]
    identity: Mapping[str, Any]
    companion: Companion | None = None


@dataclass
class Outcome:
    """What training ended with: the EMA weights to keep, steps done, and the last measurements of these weights."""

    weights: dict[str, Tensor]
    steps: int
    measurements: dict[str, float] = field(default_factory=dict)


def fit(
    fabric: Fabric, task: Task, model: nn.Module, settings: TrainingConfig, out: Path, *, seed: int, progress: bool
) -> Outcome:
    """Train a model, resuming from ``last.ckpt`` in `out` where there is one.

    Parameters
    ----------
    fabric : Fabric
    task : Task
    model : nn.Module
        Its initial weights, a pure function of the configuration and the data.
    settings : TrainingConfig
    out : Path
        Gets ``last.ckpt``, ``log.csv`` and ``tensorboard/``.
    seed : int
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Outcome
        With patience, the EMA weights of the lowest held-out loss; without, the last.

    Raises
    ------
    ConfigError
        If ``last.ckpt`` is of another configuration or other data.
    TrainingDiverged
        If a loss or gradient is not finite.
    KeyboardInterrupt
        After the step that Ctrl-C fell into, with a checkpoint written.
    """
    runner = _Runner(fabric, task, model, settings, out, seed)
    with interruptible() as interrupted, _journal(runner) as journal, _bar(runner, progress) as bar:
        while not runner.finished:
            values = runner.step()
            bar.set_postfix(loss=f"{values['loss']:.4g}", refresh=False)
            bar.update()
            if runner.due(settings.validate_every):
                runner.validate(values)
                bar.set_postfix(loss=f"{values['loss']:.4g}", holdout=f"{values['holdout_loss']:.4g}")
                if journal:
                    journal.write(runner.state.step, values)
            stop = any(processes.gather(interrupted.is_set()))  # a signal may reach some in a step, others in the next
            if runner.due(settings.checkpoint_every) or stop:
                runner.save()
            if stop:
                raise KeyboardInterrupt
    return runner.outcome()


class _Runner:
    """The moving parts of `fit`: one step, one validation, one checkpoint."""

    def __init__(
        self, fabric: Fabric, task: Task, model: nn.Module, settings: TrainingConfig, out: Path, seed: int
    ) -> None:
        self.fabric, self.task, self.settings, self.out, self.seed = fabric, task, settings, out, seed
        self.started = time.monotonic()
        self.sharded = is_sharded(fabric)
        average = deepcopy(model).eval().requires_grad_(False)
        self.average = fabric.strategy.setup_module(average) if self.sharded else fabric.to_device(average)
        self.bare, self.model = model, fabric.setup_module(model)
        groups = _groups(model, settings.weight_decay)  # of the parts, if it is sharded now
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=_BETAS, fused=True)
        self.optimizer: Any = fabric.setup_optimizers(optimizer)
        self.state = TrainingState(identity=_identity(task, settings, seed))
        device = torch.device("cpu") if self.sharded else fabric.device
        load_state(self.out, self.state, self.parts(), device, partial(split, fabric))

    def parts(self) -> dict[str, Any]:
        """Everything with a state that a resume restores."""
        parts = {
            "model": self.bare,
            "average": self.average,
            "optimizer": self.optimizer.optimizer,
            "precision": self.fabric.strategy.precision,
        }
        return parts | ({"companion": self.task.companion} if self.task.companion else {})

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or patience has run out."""
        patience = self.settings.patience
        return self.state.step >= self.settings.max_steps or bool(patience and self.state.stale >= patience)

    def due(self, interval: int) -> bool:
        """Say whether something that happens every `interval` steps, and at the end, is due."""
        return self.state.step % interval == 0 or self.finished

    def step(self) -> dict[str, float]:
        """Take one optimiser step and return its measurements."""
        step = self.state.step
        rate = learning_rate(self.settings, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        cases = batch_indices(self.task.count, self.settings.batch_size, self.seed, step)
        generator = step_generator(self.seed, step, stream=2)
        self.model.train()
        with seeded(int(torch.randint(2**62, (1,), generator=generator))):
            with self.fabric.autocast():
                loss = self.task.loss(self.model, cases, generator, step)
            self.fabric.backward(loss)
        norm, value = self._clip(), statistics.fmean(processes.gather(float(loss.detach())))
        self._check_finite(value, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.task.companion:
            self.task.companion.update()
        self._update_average(ema_decay(self.settings, step))
        self.state.step += 1
        return {"loss": value, "learning_rate": rate, "gradient_norm": norm}

    def validate(self, values: dict[str, float]) -> None:
        """Measure the averaged weights, remember them if they are the best, and add the measurements to `values`."""
        if self.sharded:  # all of them have to compute, since each holds a part of the weights
            found = processes.gather(self.task.evaluate(self.average))[0]
        else:
            found = processes.from_first(lambda: self.task.evaluate(self.average))
        values |= found | {"seconds": time.monotonic() - self.started}
        if not math.isfinite(found["holdout_loss"]):
            raise self._diverged("held-out loss", found["holdout_loss"])
        self.state.last = found
        if not self.settings.patience:
            return
        if found["holdout_loss"] < self.state.best_loss:
            self.state.best_loss, self.state.stale, self.state.best = found["holdout_loss"], 0, found
            self.state.best_weights = {k: v.detach().clone() for k, v in self.average.state_dict().items()}
        else:
            self.state.stale += 1

    def save(self) -> None:
        """Write ``last.ckpt``; what a kill leaves is the one before, whole."""
        save_state(self.out, self.state, self.parts())

    def outcome(self) -> Outcome:
        """Return the weights to keep, whole; where they were sharded, the first process has them."""
        if self.state.best_weights is not None:
            return Outcome(whole(self.state.best_weights), self.state.step, self.state.best)
        return Outcome(whole(dict(self.average.state_dict())), self.state.step, self.state.last)

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        torch._foreach_lerp_(list(self.average.parameters()), list(self.bare.parameters()), 1.0 - decay)

    def _clip(self) -> float:
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.settings.gradient_clip, error_if_nonfinite=False
        )
        return float(norm)  # type: ignore[arg-type]

    def _check_finite(self, loss: float, norm: float) -> None:
        if not math.isfinite(loss):
            raise self._diverged("loss", loss)
        # The float16 scaler meets infinite gradients on purpose, and skips such a step by itself.
        if not math.isfinite(norm) and not hasattr(self.fabric.strategy.precision, "scaler"):
            raise self._diverged("gradient norm", norm)

    def _diverged(self, what: str, value: float) -> TrainingDiverged:
        section = f"{self.task.stage}_training"
        return TrainingDiverged(
            f"The {self.task.stage} diverged at step {self.state.step + 1}: its {what} is no longer finite",
            found=str(value),
            next_step=f"Lower {section}.learning_rate, now {self.settings.learning_rate:g}, or set "
            f"{section}.precision=32-true; delete {self.out} to start afresh",
        )


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets, so that a step ends whole; a second Ctrl-C interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)


def _identity(task: Task, settings: TrainingConfig, seed: int) -> dict[str, Any]:
    # How often a run is saved, and by how many processes and in how many parts it is made, changes nothing in it.
    training = settings.model_dump(mode="json", exclude={"checkpoint_every", *UNRECORDED["denoiser_training"]})
    return {**task.identity, f"{task.stage}_training": training, "seed": seed}


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


@contextmanager
def _journal(runner: _Runner) -> Iterator[Journal | None]:
    if processes.rank():
        yield None
        return
    with Journal(runner.out, (*_COLUMNS, *runner.task.measurements), runner.state.step) as journal:
        yield journal


def _bar(runner: _Runner, progress: bool) -> tqdm:
    return tqdm(
        total=runner.settings.max_steps,
        initial=runner.state.step,
        desc=runner.task.stage,
        unit="step",
        disable=not progress or processes.rank() > 0,
    )
