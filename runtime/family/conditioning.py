"""Conditioning: from a prompt to the named tensors that a denoiser's steps take.

Tensors have the names of the bundle's manifest (`engines.bundle.manifest`); here they are arrays in host memory with one row per text.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.call import Call
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import IMAGE_SIZE
from costroute_rt.engines.bundle.tokenizer import Tokenizer, Tokens
from costroute_rt.family.calls import encoder_call
from costroute_rt.family.prompt_syntax import parse_prompt
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.router_bundle import states_source

Array = npt.NDArray[Any]
Tensors = dict[str, Array]
RunEncoder = Callable[[Tensors], Mapping[str, Array]]
"""Runs a text encoder on arrays in host memory, and returns its outputs in host memory."""

_KEPT = 32
"""Capacity of the cache, in chunks times text encoders; applications use a few negative prompts again and again."""
Key = tuple[str, Hashable]
"""Engine of the text encoder, and what it read."""


class Encodings:
    """Cache of encoded negative prompts, chunk by chunk. Safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Tensors] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def forget(self, engine: str) -> None:
        """Drop what a text encoder computed: its engine was replaced."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == engine]:
                del self._kept[key]

    def get(self, key: Key, make: Callable[[], Tensors]) -> Tensors:
        """The cached encoding, or that of `make`; the least recently used encoding is dropped when the cache is full."""
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            found = make()
        with self._lock:
            self._kept[key] = found
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found


def tokenize(tokenizers: Mapping[str, Tokenizer], text: str, names: Iterable[str], *, is_plain: bool = False) -> dict[str, Tokens]:
    """Tokens of the text, by the tokenizers called `names`.

    is_plain: take the text literally, and cut a long one, also where prompts have a syntax. Raises PromptError for a text with a wrong
    syntax, and if it is far too long for one of the tokenizers.
    """
    return {name: _encode(tokenizers[name], text, is_plain=is_plain) for name in names}


def _encode(tokenizer: Tokenizer, text: str, *, is_plain: bool) -> Tokens:
    if tokenizer.chunking is None or is_plain:
        return tokenizer.encode(text)
    tokenizer.check_length(text, tokenizer.chunking.most)
    return tokenizer.encode_chunks(parse_prompt(text))


def encode_text(
    bundle: Bundle, tokenizers: Mapping[str, Tokenizer], encoder: str, tokens: Mapping[str, Tokens], run: RunEncoder
) -> Tensors:
    """Outputs of a text encoder for one chunk by name, ENCODER.OUTPUT: float32[1, ...], without the leading tokens of a template."""
    component = bundle.components[encoder]
    name = str(component.tokenizer)
    inputs = bundle.graphs[component.graphs["encode"]].inputs
    feeds = {"input_ids": tokens[name].ids, "attention_mask": tokens[name].attention_mask}
    outputs = run({key: feeds[key].astype(spec.dtype, copy=False) for key, spec in inputs.items()})
    drop = tokenizers[name].drop
    arrays = {key: np.asarray(value, dtype=np.float32) for key, value in outputs.items()}
    return {f"{encoder}.{key}": value[:, drop:] if value.ndim > 2 else value for key, value in arrays.items()}


def join_chunks(chunks: Sequence[Tensors], tokens: Tokens) -> Tensors:
    """The tensors of one text: the weighted states of its chunks, one after the other, and the first chunk's outputs without tokens.

    chunks: outputs of a text encoder for each chunk of `tokens`, and after these for chunks of the empty text, whose weights are 1.
    """
    if len(chunks) == 1 and tokens.weights is None:
        return chunks[0]
    weights = [None] * len(chunks) if tokens.weights is None else [*tokens.weights, *[None] * (len(chunks) - len(tokens))]
    joined = {}
    for name, first in chunks[0].items():
        states = [weigh(chunk[name], each) for chunk, each in zip(chunks, weights, strict=True)] if first.ndim > 2 else [first]
        joined[name] = np.concatenate(states, axis=1)
    return joined


def weigh(states: Array, weights: Array | None) -> Array:
    """States multiplied by the weights of their tokens, then scaled such that their mean is as before, as AUTOMATIC1111's web UI does.

    states: float32[1, tokens, ...]. weights: float64[tokens]; None leaves the states as they are. Where the mean cannot be kept, because
    that of the products is 0, they are not scaled.
    """
    if weights is None:
        return states
    product = states * weights.reshape(1, -1, *[1] * (states.ndim - 2))
    before, after = states.mean(dtype=np.float64), product.mean()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scaled = (product * (before / after)).astype(np.float32)
    return scaled if np.isfinite(scaled).all() else product.astype(np.float32)


def token_tensors(tokenizers: Mapping[str, Tokenizer], tokens: Mapping[str, Tokens], names: Collection[str]) -> Tensors:
    """TOKENIZER.attention_mask: int64[1, tokens] and TOKENIZER.length: int64[1], without the leading tokens of a template.

    names: of the tensors that are taken; others are left out.
    """
    found: Tensors = {}
    for name, each in tokens.items():
        mask, length = f"{name}.attention_mask", f"{name}.length"
        if mask in names or length in names:
            found[mask] = each.attention_mask[:, tokenizers[name].drop :]
            found[length] = found[mask].sum(1)
    return found


@dataclass(frozen=True, slots=True)
class StatesSource:
    """Where the text states come from that a router reads."""

    encoder: str
    """Component name of the text encoder."""
    output: str
    """Its output, as ENCODER.OUTPUT."""
    tokenizer: str
    call: Call
    """One run of the text encoder."""

    @classmethod
    def open(cls, bundle: Bundle) -> StatesSource:
        """That of the bundle's router; raises BundleError if no text encoder has such an output."""
        encoder, output = states_source(bundle)
        return cls(encoder, output, str(bundle.components[encoder].tokenizer), encoder_call(bundle, encoder))


def text_states(
    bundle: Bundle, source: StatesSource, tensors: Tensors, tokens: Mapping[str, Tokens], tokenizers: Mapping[str, Tokenizer]
) -> TextStates:
    """One prompt's states as a router reads them.

    tensors: outputs of the source's text encoder for the prompt, or for its first chunk, without weights: routers learn from plain prompts.
    """
    name, output = source.tokenizer, source.output
    length, states = max(1, tokens[name].length - tokenizers[name].drop), tensors[output]
    if bundle.tokenizers[name].pad_side == "left":
        states = np.roll(states, length, axis=1)  # moves the padding from the start to the end, where a router expects it
    return TextStates(states, np.array([length]))


def stack_rows(positive: Tensors, negative: Tensors | None, names: Iterable[str], size: tuple[int, int]) -> Tensors:
    """The tensors called `names`, one row per text: the negative prompt's row, if there is one, precedes the prompt's.

    size: height and width of the image in pixels.
    """
    stacked: Tensors = {}
    for name in names:
        if name == IMAGE_SIZE:
            stacked[name] = np.array(size, dtype=np.int64)
        elif negative is None:
            stacked[name] = positive[name]
        else:
            stacked[name] = np.concatenate([negative[name], positive[name]])
    return stacked
