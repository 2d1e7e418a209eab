"""The training loop that all networks share: time limit across restarts, checkpoints, averaged weights, learning-rate schedule."""

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from costroute_rt.export.postcard.optimizer import Optimizer

logger = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 120
REPORT_SECONDS = 30


class Run:
    """Trains one network for a given time; resumes from the checkpoint `path` if it exists.

    Iterating yields the share of the time that has passed, 0..1; the loop body computes a loss and calls `step`. `average` has the averaged
    weights (exponential, half-life growing to about 350 steps), which are the result of the training.
    """

    def __init__(self, model: nn.Module, path: Path, minutes: float, rate: float, plain: tuple[str, ...] = (), flat: float = 0.5) -> None:
        """rate: AdamW's peak learning rate; plain: see Optimizer; flat: share of the time at the peak rate."""
        self.model, self.path, self.seconds, self.flat = model, path, minutes * 60, flat
        self.optimizer = Optimizer(model, rate, plain)
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.steps, self.elapsed, self.loss = 0, 0.0, math.nan
        if path.exists():
            self.load()

    def __iter__(self) -> Iterator[float]:
        device = next(self.model.parameters()).device
        saved = reported = last = time.monotonic()
        torch.manual_seed(self.steps)
        while self.elapsed < self.seconds:
            with torch.autocast(device.type, torch.bfloat16):
                yield self.elapsed / self.seconds
            now = time.monotonic()
            self.elapsed, last = self.elapsed + now - last, now
            if now - reported > REPORT_SECONDS:
                reported = now
                logger.info("%s: step %d, %.0f of %.0f s, loss %.4f", self.path.stem, self.steps, self.elapsed, self.seconds, self.loss)
            if now - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def step(self, loss: torch.Tensor) -> None:
        """One optimizer step on `loss`, inside or outside autocast; skips a loss that is not finite."""
        value = loss.item()
        if not math.isfinite(value):
            logger.warning("%s: step %d skipped, loss %s", self.path.stem, self.steps, value)
            return
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        self.optimizer.step(loss, rate_scale(self.elapsed / self.seconds, self.flat))
        self.steps += 1
        if self.steps % 2 == 0:
            share = 2 * (1 - min(0.998, (1 + self.steps) / (20 + self.steps)))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), share)
            for kept, current in zip(self.average.buffers(), self.model.buffers(), strict=True):
                kept.copy_(current)

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "elapsed": self.elapsed,
            "loss": self.loss,
        }
        replace_file(self.path, lambda partial: torch.save(state, partial))

    def load(self) -> None:
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.elapsed, self.loss = state["steps"], state["elapsed"], state["loss"]
        logger.info("%s: resumed at step %d, %.0f s", self.path.stem, self.steps, self.elapsed)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a temporary file, then renames it to `path`: a killed run leaves the old file or the new one."""
    partial = path.with_suffix(".partial")
    write(partial)
    os.replace(partial, path)


def rate_scale(done: float, flat: float) -> float:
    """Learning rate relative to the peak: a short warm-up, constant until `flat`, then a cosine to nearly zero; done: 0..1."""
    fall = min(1.0, max(0.0, (done - flat) / (1 - flat)))
    return min(1.0, done / 0.02 + 0.02) * max(0.005, 0.5 + 0.5 * math.cos(math.pi * fall))
