"""The conditioning of one request: its texts are encoded, and become the inputs of its denoisers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from costroute_rt.call import Call
from costroute_rt.engines.bundle.manifest import GUIDANCE_RESCALE
from costroute_rt.engines.bundle.tokenizer import Tokens
from costroute_rt.family.conditioning import StatesSource, Tensors, join_chunks, stack_rows, text_states, token_tensors
from costroute_rt.family.family import Family
from costroute_rt.family.plan import Plan, grown
from costroute_rt.family.resources import Resources
from costroute_rt.family.texts import Texts, chunk_key
from costroute_rt.generation.engine_use import EngineUse
from costroute_rt.generation.loop import Denoiser, Plain
from costroute_rt.generation.stopwatch import Stopwatch
from costroute_rt.request import Request
from costroute_rt.routing.prompt_encoder import TextStates


class Conditioner:
    """Runs the text encoders and the `condition` graphs of one request; `family.conditioning` has the arithmetic between them."""

    def __init__(self, resources: Resources, request: Request, engines: EngineUse, watch: Stopwatch) -> None:
        """engines, watch: the request's."""
        self._resources, self._request, self._engines, self._watch = resources, request, engines, watch
        self._encoded: dict[str, list[Tensors]] = {}
        """Outputs of text encoders for each chunk of the prompt, by the name of their engine."""
        self.is_truncated = False
        """Whether the end of a text was left out; known once there are denoisers."""

    def clear(self) -> None:
        """Drop the outputs of text encoders."""
        self._encoded.clear()

    def text_states(self, family: Family, source: StatesSource) -> TextStates:
        """The prompt's states for the router."""
        with self._watch.stage("tokenize"):
            tokens = family.tokenize(self._request.prompt, [source.tokenizer], is_plain=self._request.plain_prompt)
        chunks = self._encode(family, source.call, source.encoder, tokens[source.tokenizer])
        return text_states(family.bundle, source, chunks[0], tokens, family.tokenizers)

    def denoisers(self, family: Family, plan: Plan) -> tuple[Denoiser, Plain | None]:
        """The denoiser of the plan with its conditioning, and that of its rows without guidance, if they run another graph."""
        positive, negative, chunks = self._encode_texts(family, plan)
        self._engines.enter_phase(plan.step.engine)
        tensors = stack_rows(positive, negative, plan.sources, plan.size)
        main = Denoiser(self._engines.get(plan.step.engine), self._condition(plan.condition, plan.step, tensors, chunks))
        main.fix(GUIDANCE_RESCALE, np.array([plan.candidate.guidance_rescale], dtype=np.float32))
        if plan.plain_step is None:
            return main, None
        tensors = stack_rows(positive, None, plan.sources, plan.size)
        conditions = self._condition(plan.plain_condition, plan.plain_step, tensors, chunks)
        names, costs = (plan.step.engine, plan.plain_step.engine), self._resources.costs
        step_ms = costs.expected_ms(plan.step)
        plain = Plain(
            Denoiser(self._engines.get(plan.plain_step.engine), conditions),
            share=costs.expected_ms(plan.plain_step) / step_ms if step_ms > 0 else 1.0,
            enter=lambda value: self._engines.lease.move(value, *names),
            leave=lambda value: self._engines.lease.move(value, *reversed(names)),
        )
        return main, plain

    def _encode_texts(self, family: Family, plan: Plan) -> tuple[Tensors, Tensors | None, int]:
        """The tensors of the prompt and of the negative prompt, if it is used, and the chunks of the longer one."""
        with self._watch.stage("tokenize"):
            texts = family.texts(self._request, plan)
        self.is_truncated = texts.is_truncated
        positive = token_tensors(family.tokenizers, texts.prompt, plan.sources)
        for encoder, call in plan.encoders.items():
            tokenizer = str(family.bundle.components[encoder].tokenizer)
            tokens, filling = texts.prompt[tokenizer], texts.filling(texts.prompt, tokenizer)
            chunks = [*self._encode(family, call, encoder, tokens), *self._kept(family, call, encoder, filling)]
            positive |= join_chunks(chunks, tokens)
        negative = None if texts.negative is None else self._negative(family, plan, texts, texts.negative, positive)
        return positive, negative, texts.chunks

    def _condition(self, condition: Call | None, step: Call, tensors: Tensors, chunks: int) -> dict[str, Any]:
        """The conditioning inputs of a step engine by name, on its device; condition: the call of the graph before it."""
        if condition is None:
            target = self._engines.get(step.engine)
            return {name: target.to_device(array) for name, array in tensors.items()}
        engine = self._engines.get(condition.engine)
        with self._watch.stage("text") as lap:
            given = {name: engine.to_device(array) for name, array in tensors.items()}
            made = engine.run({name: value for name, value in given.items() if name in engine.inputs})
        self._engines.note_run(grown(condition, chunks), lap.ms)
        return {name: self._engines.lease.move(value, condition.engine, step.engine) for name, value in {**given, **made}.items()}

    def _negative(self, family: Family, plan: Plan, texts: Texts, negative: Mapping[str, Tokens], positive: Tensors) -> Tensors:
        """The tensors of the negative prompt: encoded text, or zeros if the family uses them for a missing negative prompt."""
        found = token_tensors(family.tokenizers, negative, plan.sources)
        for encoder, call in plan.encoders.items():
            if texts.has_zeros:
                found |= {name: np.zeros_like(array) for name, array in positive.items() if name.startswith(f"{encoder}.")}
            else:
                tokenizer = str(family.bundle.components[encoder].tokenizer)
                tokens, filling = negative[tokenizer], texts.filling(negative, tokenizer)
                chunks = [*map(tokens.chunk, range(len(tokens))), *filling]
                found |= join_chunks(self._kept(family, call, encoder, chunks), tokens)
        return found

    def _kept(self, family: Family, call: Call, encoder: str, chunks: Iterable[Tokens]) -> list[Tensors]:
        """Outputs of a text encoder for chunks that later requests are likely to have too."""
        found = []
        for chunk in chunks:
            make = partial(self._run_encoder, family, call, encoder, chunk)
            with self._engines.reading():  # no engine is replaced meanwhile
                kept, key = self._resources.negatives, (call.engine, chunk_key(chunk))
                found.append(kept.get(key, make) if self._engines.lease.is_current else make())
        return found

    def _encode(self, family: Family, call: Call, encoder: str, tokens: Tokens) -> list[Tensors]:
        """Outputs of one text encoder for each chunk of the prompt, computed once per request."""
        if call.engine not in self._encoded:
            chunks = map(tokens.chunk, range(len(tokens)))
            self._encoded[call.engine] = [self._run_encoder(family, call, encoder, chunk) for chunk in chunks]
        return self._encoded[call.engine]

    def _run_encoder(self, family: Family, call: Call, encoder: str, chunk: Tokens) -> Tensors:
        engine, tokenizer = self._engines.get(call.engine), str(family.bundle.components[encoder].tokenizer)
        with self._engines.reading(), self._watch.stage("text") as lap:
            found = family.encode(encoder, {tokenizer: chunk}, engine)
        self._engines.note_run(call, lap.ms)
        return found
