"""One image by nothing but library calls: the engines of an open runtime, called in a plain loop with every tensor bound once.

It is what the runtime is measured against: the same engines, in the same process, without requests, queue, routing, checks and events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.peer import NAME, Job, Pixels
from costroute_rt import Request, Runtime
from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.bundle.manifest import CARRIED, NEXT_CARRIED
from costroute_rt.family.conditioning import stack_rows, token_tensors
from costroute_rt.family.engine_set import run_on_host
from costroute_rt.family.family import Family
from costroute_rt.family.plan import Plan
from costroute_rt.sampling.noise import NoiseStream

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


class NativeCall(Protocol):
    """One engine of the library, with arrays that it reads and writes where they lie."""

    def __call__(self) -> object: ...


class PlainLoop:
    """Makes the image of one job again and again."""

    def __init__(self, runtime: Runtime, job: Job) -> None:
        """The job's engines are loaded; its candidate has one text encoder and guidance."""
        resources = runtime._resources
        family = resources.main_family
        candidate = next(each for each in runtime.candidates if each.name == NAME.format(job.num_inference_steps))
        plan = family.plan(candidate, (family.bundle.image.height, family.bundle.image.width))
        engines = {name: resources.engines.get(name) for name in dict.fromkeys(call.engine for call in plan.image_calls)}
        self._seed, self._plan = job.seed, plan
        self.library_cpu_ms = 0.0
        """Processor time of the calling thread in calls of the library, for the last image."""
        self._kept = list[Arrays]()  # the library does not keep what it reads and writes
        self._has_memory = CARRIED in engines[plan.step.engine].inputs
        self._rows = plan.table.rows(memory=self._has_memory).astype(np.float32)
        self._scale = np.float32(plan.table.initial_noise_scale)
        self._prepare_text(family, plan, engines, job.prompt)
        self._prepare_steps(plan, engines)

    def _prepare_text(self, family: Family, plan: Plan, engines: Mapping[str, Engine], prompt: str) -> None:
        """The text encoder with the prompt's tokens, and the tensors of both texts, of which it gives the prompt's anew for each image."""
        ((encoder, call),) = plan.encoders.items()
        texts, tokenizer = family.texts(Request(prompt=prompt), plan), str(family.bundle.components[encoder].tokenizer)
        engine, inputs = engines[call.engine], family.bundle.graphs[family.bundle.components[encoder].graphs["encode"]].inputs
        assert texts.negative is not None
        encoded = [family.encode(encoder, {tokenizer: side[tokenizer].chunk(0)}, engine) for side in (texts.negative, texts.prompt)]
        tokens = [token_tensors(family.tokenizers, side, plan.sources) for side in (texts.negative, texts.prompt)]
        self._text = stack_rows({**encoded[0], **tokens[0]}, {**encoded[1], **tokens[1]}, plan.sources, plan.size)
        self._text = {name: np.ascontiguousarray(array) for name, array in self._text.items()}
        for name in (name for name in self._text if name in encoded[0]):
            self._text[name][...] = np.concatenate([encoded[0][name], encoded[1][name]])
        feeds = {"input_ids": texts.prompt[tokenizer].ids, "attention_mask": texts.prompt[tokenizer].attention_mask}
        given = {name: np.ascontiguousarray(feeds[name], spec.dtype) for name, spec in inputs.items()}
        states = make_outputs(engine, given)
        self._encode = self._bind(engine, given, states)
        self._states = [(self._text[name][1:], states[name.removeprefix(f"{encoder}.")]) for name in self._text if name in encoded[0]]

    def _prepare_steps(self, plan: Plan, engines: Mapping[str, Engine]) -> None:
        """The calls of `condition`, of the step and of the decoder, bound to one set of arrays."""
        condition: NativeCall | None = None
        conditions: Arrays = dict(self._text)
        if plan.condition is not None:
            engine = engines[plan.condition.engine]
            given = {name: self._text[name] for name in engine.inputs}
            made = make_outputs(engine, given)
            condition, conditions = self._bind(engine, given, made), {**conditions, **made}
        self._condition = condition
        step, shape = engines[plan.step.engine], (1, *plan.latent_shape)
        loop: Arrays = {name: np.zeros(shape, np.float32) for name in ("latent", "denoised_before", "noise", CARRIED)}
        loop["row"] = np.zeros(self._rows.shape[1], np.float32)
        given = {name: loop[name] if name in loop else conditions[name] for name in step.inputs}
        self._latent, self._denoised_before, self._carried, self._row = (
            loop[name] for name in ("latent", "denoised_before", CARRIED, "row")
        )
        self._outputs = make_outputs(step, given)
        self._step = self._bind(step, given, self._outputs)
        decode = engines[plan.decode.engine]
        pixels = make_outputs(decode, {"latent": self._latent})
        self._decode, self._pixels = self._bind(decode, {"latent": self._latent}, pixels), pixels["pixels"]

    def _bind(self, engine: Any, inputs: Arrays, outputs: Arrays) -> NativeCall:
        self._kept += [inputs, outputs]
        call = bind(engine, inputs, outputs)

        def run() -> None:
            started_s = time.thread_time()
            call()
            self.library_cpu_ms += (time.thread_time() - started_s) * 1000

        return run

    def __call__(self) -> Pixels:
        """uint8[height, width, 3]."""
        self.library_cpu_ms = 0.0
        self._encode()
        for target, states in self._states:
            target[...] = states
        if self._condition is not None:
            self._condition()
        self._latent[...] = NoiseStream([self._seed], self._plan.latent_shape).draw() * self._scale
        self._denoised_before[...] = 0
        self._carried[...] = 0
        for row in self._rows:
            self._row[...] = row
            self._step()
            self._latent[...] = self._outputs["next_latent"]
            self._denoised_before[...] = self._outputs["denoised"]
            if self._has_memory:
                self._carried[...] = self._outputs[NEXT_CARRIED]
        self._decode()
        found: Pixels = self._pixels[0].copy()
        return found


def make_outputs(engine: Engine, feeds: Arrays) -> Arrays:
    """Arrays for the outputs, by one run of the engine."""
    return {name: np.array(array) for name, array in run_on_host(engine, feeds).items()}


def bind(engine: Any, inputs: Arrays, outputs: Arrays) -> NativeCall:
    """A call of the library's own object under an engine, or under one that is shared; the arrays must outlive it."""
    inner = getattr(engine, "_engine", engine)
    return _bind_onnxruntime(inner, inputs, outputs) if hasattr(inner, "_session") else _bind_openvino(inner, inputs, outputs)


def _bind_onnxruntime(engine: Any, inputs: Arrays, outputs: Arrays) -> NativeCall:
    import onnxruntime

    binding = engine._session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    session, options = engine._session, onnxruntime.RunOptions()
    return lambda: session.run_with_iobinding(binding, options)


def _bind_openvino(engine: Any, inputs: Arrays, outputs: Arrays) -> NativeCall:
    """With the model of sines and cosines, where there is one, whose outputs stay bound as inputs of the main one."""
    import openvino

    request = engine._request.raw.get_compiled_model().create_infer_request()
    for name, array in (inputs | outputs).items():
        if name in _names(request):
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    run: Callable[[], object] = request.infer
    if engine._angles is None:
        return run
    angles = engine._angles.raw.get_compiled_model().create_infer_request()
    for name in inputs.keys() & _names(angles):
        angles.set_tensor(name, openvino.Tensor(inputs[name], shared_memory=True))
    for name in _names(angles) & _names(request) - inputs.keys():
        request.set_tensor(name, angles.get_tensor(name))
    return lambda: (angles.infer(), run())


def _names(request: Any) -> set[str]:
    model = request.get_compiled_model()
    return {name for port in (*model.inputs, *model.outputs) for name in port.names}
