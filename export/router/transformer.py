"""Fitting the transformer estimator: one small network over the text encoder's token states, with one head per candidate.

All candidates are learned together, as in CATImage (Li et al., arXiv 2506.14753, section 4.2). Weights are rounded to float16, as in a
bundle, so that the fitted network is the one that will run.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.installation import explain_import
from costroute_rt.error import ConfigError
from costroute_rt.export.checkpoint.component import trace_graph, write_weights
from costroute_rt.export.graph.compose import save_graph
from costroute_rt.routing.array import FloatArray, IntArray
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.label_weight import label_weights
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.estimator.transformer import Transformer
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.router import Router
from costroute_rt.routing.router_network import Network, estimator_network

if TYPE_CHECKING:
    from torch import Tensor

LEAST_PROMPTS = 10
"""With fewer labelled prompts none can be held out, and only the average is learned."""
HELD_OUT = 0.2
EPOCHS, PATIENCE = 60, 8
LEAST_BATCH, BATCH, LEAST_STEPS = 4, 32, 16
"""With few prompts batches are smaller, so that an epoch has LEAST_STEPS steps if possible."""
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 2e-3, 0.05, 0.1
AVERAGED = 0.97
"""Decay of the running average of the weights; this average is the network that is used."""
HEADS, QUERIES = 4, 4
_STEPS = 4096
"""Targets and weights are rounded to 1 / _STEPS, so that the unit of scores does not change the last digits."""


@dataclass(frozen=True, slots=True)
class _Examples:
    """Training data, as tensors."""

    states: Tensor
    """float32[prompts, tokens, width]"""
    lengths: Tensor
    targets: Tensor
    """float32[prompts, candidates]: labels minus the candidate's average, in units of its spread."""
    weights: Tensor
    """float32[prompts, candidates], 0 for missing labels."""

    def __len__(self) -> int:
        return len(self.states)

    def select(self, rows: Any) -> _Examples:
        lengths = self.lengths[rows]
        return _Examples(self.states[rows, : int(lengths.max())], lengths, self.targets[rows], self.weights[rows])


def fit_transformer(
    states: TextStates, mean: FloatArray, variance: FloatArray, *, groups: IntArray | None = None, width: int = 64, seed: int = 0
) -> Estimator:
    """Trains on 80 % of the prompts until the held-out ones are predicted no better, then for as many epochs on all of them.

    states: of the prompts. mean, variance: as in `Average.fit`. groups: int64[prompts]; prompts of a group are held out together.
    width: of the network. The same arguments give the same network. The squared standard error is half of the difference in squared error
    between held-out and training prompts, which is the network's own part (Efron 2004), and at least that of an average. With fewer than
    LEAST_PROMPTS the average is returned. Raises BackendError without torch, ConfigError for states that are not finite or belong to other
    prompts.
    """
    torch = import_torch()
    if len(states) != len(mean) or not np.isfinite(states.states).all():
        raise ConfigError("states", f"float32{list(states.states.shape)}", f"finite numbers for {len(mean)} prompts")
    average = Average.fit(mean, variance)
    known = np.flatnonzero(~np.isnan(mean).all(1))
    numbers = np.unique((np.arange(len(mean)) if groups is None else groups)[known], return_inverse=True)[1].ravel()
    if numbers.max(initial=-1) + 1 < LEAST_PROMPTS:
        return average
    examples, spread = _prepare(torch, states.select(known), mean[known], variance[known], average)
    shuffled = np.random.default_rng(seed).permutation(int(numbers.max()) + 1)
    is_held_out = np.isin(numbers, shuffled[: max(2, round(HELD_OUT * len(shuffled)))])
    learned, held_out = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = _make_network(torch, examples, average.mean, spread, width)
        tried, epochs = _train(torch, copy.deepcopy(start), examples.select(learned), EPOCHS, examples.select(held_out))
        torch.manual_seed(seed)
        network, _ = _train(torch, start, examples, epochs, None)
    own = _own_variance(torch, tried, examples, learned, held_out) * spread**2
    error = np.where(spread > 0, np.sqrt(np.maximum(own, average.standard_error**2)), average.standard_error)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half().float())
    spec = estimator_network(states.states.shape[2], mean.shape[1])
    engine = cast(Engine, ModuleEngine(network, spec))
    return Transformer(lambda component, graph: engine, error, width=states.states.shape[2])


class ModuleEngine:
    """A torch module with the interface of an engine, until it is exported to one."""

    def __init__(self, module: Any, network: Network) -> None:
        self._module, self._network = module.eval(), network
        self.inputs = network.spec.inputs

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        with torch.inference_mode():
            values = self._module(*(torch.from_numpy(feeds[name]) for name in self.inputs))
        return dict.fromkeys(self._network.spec.outputs, values)

    def to_device(self, array: Any) -> Any:
        return array

    def to_host(self, value: Any) -> Any:
        return value.numpy()

    def write(self, folder: Path) -> None:
        """Writes the network's two files as in a bundle."""
        import torch

        weights, path = folder / self._network.weights, folder / self._network.file
        write_weights(self._module, weights)
        width = self.inputs["states"].shape[2]
        example = torch.zeros(2, 5, cast(int, width)), torch.tensor([5, 3])
        save_graph(trace_graph(self._module, example, weights, self._network.spec), path)


def save_router(router: Router, folder: Path) -> None:
    """Writes a router that was just fitted, with its trained network."""
    router.save(folder)
    members = router.estimator.members if isinstance(router.estimator, Mean) else (router.estimator,)
    for member in members:
        for network in member.networks:
            engine = cast(Any, member).open_engine(network.role, network.graph)
            engine.write(folder)


def import_torch() -> Any:
    """The torch module; raises BackendError, naming the extra to install, if it is missing."""
    try:
        import torch
    except ImportError as error:
        raise explain_import(error, "the torch side, for the transformer estimator", Fix.extra("export")) from error
    return torch


def _prepare(torch: Any, states: TextStates, mean: FloatArray, variance: FloatArray, average: Average) -> tuple[_Examples, FloatArray]:
    """Training data, and the spread of each candidate's labels: 0 if it has none, or only equal ones."""
    weights, labels = label_weights(mean, variance)
    spread = np.where(weights.sum(0) > 0, average.spread, 0.0)
    spread[spread <= 1e-9 * np.abs(average.mean)] = 0.0
    targets = np.divide(labels - average.mean, spread, out=np.zeros_like(labels), where=spread > 0)
    rounded = [torch.from_numpy((np.round(_STEPS * array) / _STEPS).astype(np.float32)) for array in (targets, weights * (spread > 0))]
    return _Examples(torch.from_numpy(states.states), torch.from_numpy(states.lengths), *rounded), spread


def _train(torch: Any, network: Any, examples: _Examples, epochs: int, held_out: _Examples | None) -> tuple[Any, int]:
    """The running average of the network's weights after the best epoch (the last, if nothing is held out), and that epoch's number."""
    averaged = copy.deepcopy(network).eval()
    best, best_loss, best_epoch = copy.deepcopy(averaged), _loss(torch, averaged, held_out), 0
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    network.train()
    size = min(BATCH, max(LEAST_BATCH, len(examples) // LEAST_STEPS))
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(examples)).split(size):
            batch = examples.select(rows)
            optimizer.zero_grad()
            _squares(network, batch).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                for kept, new in zip(averaged.parameters(), network.parameters(), strict=True):
                    kept.lerp_(new, 1 - AVERAGED)
        if held_out is None:
            continue
        loss = _loss(torch, averaged, held_out)
        if loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(averaged), loss, epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    return (averaged, epochs) if held_out is None else (best, best_epoch)


def _loss(torch: Any, network: Any, examples: _Examples | None) -> float:
    with torch.inference_mode():
        return float("inf") if examples is None else float(_squares(network, examples))


def _squares(network: Any, examples: _Examples) -> Any:
    """Weighted mean squared error; 0 if all weights are 0."""
    wrong = network.standardised(examples.states, examples.lengths) - examples.targets
    return (examples.weights * wrong**2).sum() / examples.weights.sum().clamp(min=1e-6)


def _own_variance(torch: Any, network: Any, examples: _Examples, learned: Any, held_out: Any) -> FloatArray:
    """float64[candidates], in squared spreads: half of the difference in squared error between held-out and training prompts."""
    errors = []
    for rows in (held_out, learned):
        part = examples.select(rows)
        with torch.inference_mode():
            wrong = (part.weights * (network.standardised(part.states, part.lengths) - part.targets) ** 2).sum(0)
        errors.append((wrong / part.weights.sum(0).clamp(min=1e-6)).numpy().astype(np.float64))
    return np.asarray(np.maximum(errors[0] - errors[1], 0) / 2)


def _make_network(torch: Any, examples: _Examples, average: FloatArray, spread: FloatArray, width: int) -> Any:
    """An untrained network whose estimate is the average."""
    from torch import nn

    tokens = examples.states[torch.arange(examples.states.shape[1]) < examples.lengths[:, None]]
    scale = tokens.std(0)

    class Network(nn.Module):
        """Tokens, standardised -> one layer of self-attention -> attention pooling with a few queries -> heads."""

        def __init__(self) -> None:
            super().__init__()
            for name, value in (("center", tokens.mean(0)), ("scale", torch.where(scale > 1e-6, scale, 1.0))):
                self.register_buffer(name, value, persistent=False)  # constants of the graph, which are not rounded
            for name, array in (("average", average), ("spread", spread)):
                self.register_buffer(name, torch.from_numpy(array.astype(np.float32)), persistent=False)
            self.project = nn.Linear(tokens.shape[1], width)
            self.norm, self.attend, self.join = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.norm_2 = nn.LayerNorm(width)
            self.forward_layer = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(2 * width, width))
            self.queries = nn.Linear(width, QUERIES)
            self.mix = nn.Sequential(nn.LayerNorm(QUERIES * width), nn.Dropout(DROPOUT), nn.Linear(QUERIES * width, width), nn.GELU())
            self.heads = nn.Linear(width, len(average))
            nn.init.zeros_(self.heads.weight)
            nn.init.zeros_(self.heads.bias)

        def standardised(self, states: Any, lengths: Any) -> Any:
            """float32[prompts, candidates]: the estimate minus the average, in units of the spread."""
            own = (torch.arange(states.shape[1]) < lengths[:, None].clamp(min=1))[:, :, None]  # [n, t, 1]
            x = self.project(torch.where(own, (states - self.center) / self.scale, 0.0))
            x = x + self.join(self.attention(self.attend(self.norm(x)), own))
            x = x + self.forward_layer(self.norm_2(x))
            shares = self.queries(x).masked_fill(~own, -1e4).softmax(1)  # [n, t, q]
            pooled = shares.transpose(1, 2) @ x  # [n, q, width]
            return self.heads(self.mix(pooled.flatten(1)))

        def attention(self, x: Any, own: Any) -> Any:
            """x: [n, t, 3 * width] -> [n, t, width]"""
            query, key, value = x.unflatten(2, (3, HEADS, width // HEADS)).permute(2, 0, 3, 1, 4)
            scores = query @ key.transpose(2, 3) * (width // HEADS) ** -0.5  # [n, heads, t, t]
            shares = scores.masked_fill(~own[:, None, :, 0][:, :, None], -1e4).softmax(3)
            return (shares @ value).transpose(1, 2).flatten(2)

        def forward(self, states: Any, lengths: Any) -> Any:
            """states: float32[n, tokens, width], lengths: int64[n] -> float32[n, candidates]"""
            return self.average + self.spread * self.standardised(states, lengths)

    return Network()
