"""AUTOMATIC1111's rule for weighted and long prompts, from its definition, with torch's text encoders.

A prompt is a list of (text, weight). The tokens of all texts, in order, fill chunks of 75; a chunk that would end between two commas ends
at the last comma if that is fewer than 20 tokens back; BREAK ends a chunk. Each chunk has a start and an end token and padding, and is
encoded alone. Its states are multiplied by the weights of their tokens, and scaled such that their mean is as before. The shorter of
prompt and negative prompt is filled with chunks of the empty text. The pooled output is that of the first chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

ROOM, BACKTRACK = 75, 20
BREAK = ("BREAK", -1.0)
"""As the web UI has it."""
Pieces = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a pipeline takes in place of a prompt."""

    states: Any
    """Tensor[1, tokens, width]"""
    pooled: Any = None
    """Tensor[1, width] of the second text encoder."""


def encode_pair(pipeline: Any, prompt: Pieces, negative: Pieces, *, clip_skip: int = 0) -> tuple[Encoded, Encoded]:
    """The prompt and the negative prompt, with as many chunks each."""
    import torch

    found: list[list[Any]] = [[], []]
    pooled: list[Any] = [None, None]
    pairs = [(getattr(pipeline, f"tokenizer{tail}", None), getattr(pipeline, f"text_encoder{tail}", None)) for tail in ("", "_2")]
    is_joint = pairs[1][1] is not None
    for tokenizer, encoder in pairs:
        if encoder is None:
            continue
        sides = [list(_chunks(tokenizer, text)) for text in (prompt, negative)]
        most = max(map(len, sides))
        for index, chunks in enumerate(sides):
            chunks += [([], [])] * (most - len(chunks))
            outputs = [_encode(tokenizer, encoder, ids, weights, is_joint=is_joint, clip_skip=clip_skip) for ids, weights in chunks]
            found[index].append(torch.cat([states for states, _ in outputs], 1))
            pooled[index] = outputs[0][1]
    sides_found = [Encoded(torch.cat(states, -1), first) for states, first in zip(found, pooled, strict=True)]
    return sides_found[0], sides_found[1]


def _chunks(tokenizer: Any, pieces: Pieces) -> Iterator[tuple[list[int], list[float]]]:
    comma = tokenizer(",", add_special_tokens=False).input_ids[0]
    ids: list[int] = []
    weights: list[float] = []
    last_comma = -1
    for text, weight in pieces:
        if (text, weight) == BREAK:
            yield ids, weights
            ids, weights, last_comma = [], [], -1
            continue
        for token in tokenizer(text, add_special_tokens=False).input_ids:
            if token == comma:
                last_comma = len(ids)
            elif len(ids) == ROOM and last_comma != -1 and len(ids) - last_comma <= BACKTRACK:
                at = last_comma + 1
                yield ids[:at], weights[:at]
                ids, weights, last_comma = ids[at:], weights[at:], -1
            if len(ids) == ROOM:
                yield ids, weights
                ids, weights, last_comma = [], [], -1
            ids, weights = [*ids, token], [*weights, weight]
    if ids or not pieces:
        yield ids, weights


def _encode(
    tokenizer: Any, encoder: Any, ids: Sequence[int], weights: Sequence[float], *, is_joint: bool, clip_skip: int
) -> tuple[Any, Any]:
    import torch

    rest = ROOM - len(ids)
    tokens = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * rest]
    with torch.inference_mode():
        output = encoder(torch.tensor([tokens]), output_hidden_states=True)
        states = output.hidden_states[-2 - clip_skip] if is_joint else output.hidden_states[-1 - clip_skip]
        if not is_joint:
            states = encoder.text_model.final_layer_norm(states)
    factors = torch.tensor([1.0, *weights, *[1.0] * (rest + 1)])[None, :, None]
    weighted = states * factors
    weighted = weighted * (states.mean() / weighted.mean()) if any(weight != 1 for weight in weights) else states
    return weighted, getattr(output, "text_embeds", None)
