"""The OpenAPI document of the server, written from the same lists that its endpoints read."""

from __future__ import annotations

from typing import Any

from costroute_rt.cli.server.a1111_choice import EMPTY
from costroute_rt.cli.server.asking import MOST_SIDE
from costroute_rt.cli.server.settings import Limits
from costroute_rt.request import LAST_SEED
from costroute_rt.version import read_version

Schema = dict[str, Any]
TEXT, FLAG, NUMBER, WHOLE = {"type": "string"}, {"type": "boolean"}, {"type": "number"}, {"type": "integer"}
ANY: Schema = {}
_COMMON = (400, 401, 403, 405, 500, 503)
_READING = (408, 413, 415)
_MAKING = (409, 422, 429)
_MEANING = {
    400: "A field is wrong.",
    401: "The token is missing or wrong.",
    403: "The host name or the origin is not allowed.",
    404: "There is no such thing, or it has expired.",
    405: "This address has no such method.",
    408: "The body did not arrive in time.",
    409: "It was cancelled, or a later request took its place.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    422: "Nothing is fast enough for `max_ms`.",
    429: "The queue is full, or the image would be late. `retry-after-ms` says when to ask again.",
    500: "An engine or the server failed.",
    503: "The server opens its models, or is about to end.",
}


_ANSWERS = {
    "Route": "prompt max_ms chosen scheduler reason lam tolerance router options unfit fallback assumes",
    "Job": "id object created client prompt state max_ms elapsed_ms ms_to_go candidate ahead start_in_ms step steps images notes error",
    "Jobs": "object data",
    "Removed": "id object state deleted",
    "Pool": "state opening family candidates image_sizes fallback assumes formats limits",
    "Images": "created data size quality background output_format usage costroute",
    "Models": "object data",
    "Model": "id object created owned_by",
    "A1111Images": "images parameters info",
    "Progress": "progress eta_relative state current_image textinfo",
    "PngInfo": "info items parameters",
    "JobEvent": "job",
    "Readiness": "status",
    "Health": "status",
}
"""The fields that answers always have, by the name of their schema."""
JOB_EVENTS = ("queued", "routed", "step", "replanned", "done", "failed", "cancelled")
FAILURE = "message"
"""What an event without a name is called: an error in OpenAI's streams."""
_FILE = {"type": "string", "format": "binary"}
_PICTURE = "An image file in base64, with or without the head of a data URL."


def make_document(limits: Limits) -> Schema:
    """The document, ready for `json.dumps`."""
    paths = {**_own(), **_openai(), **_a1111(), **_state()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "costroute-rt",
            "version": read_version(),
            "description": "Text to image within a time budget. docs/server.md explains it.",
        },
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"}},
            "schemas": _schemas(limits),
        },
    }


def _own() -> Schema:
    number, list_of = _path("number"), [_query("client", TEXT)]
    last = [_query("last_event_id", {"type": "integer", "minimum": 0}), _header("last-event-id", {"type": "integer", "minimum": 0})]
    return {
        "/v1/route": {"post": _makes("The decision that a job would get now", "RouteRequest", "Route")},
        "/v1/jobs": {
            "post": _makes("Begin a job", "JobRequest", "Job", status=202),
            "get": _gives("Jobs of one client, or all", "Jobs", parameters=list_of),
        },
        "/v1/jobs/{number}": {
            "get": _gives("A job", "Job", parameters=number, errors=(404,)),
            "delete": _gives("Cancel a job, or remove one that has ended", "Removed", parameters=number, errors=(404,)),
        },
        "/v1/jobs/{number}/events": {"get": _streams("The events of a job", [*number, *last], errors=(404,))},
        "/v1/events": {"get": _streams("The events of all jobs of one client", [_query("client", TEXT), *last])},
        "/v1/pool": {"get": _gives("What can be used", "Pool")},
        "/pictures/{name}": {"get": _gives_file("An image", _path("name"), ("image/png", "image/jpeg", "image/webp"))},
    }


def _openai() -> Schema:
    generate, edit = _makes("OpenAI: images of a prompt", "ImageRequest", "Images"), _makes("OpenAI: edit an image", None, "Images")
    for operation, name in ((generate, "image_generation"), (edit, "image_edit")):
        names = (f"{name}.partial_image", f"{name}.completed", FAILURE)
        operation["responses"]["200"]["content"] |= {"text/event-stream": {"schema": _event(names, "ImageEvent")}}
    edit["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _ref("EditRequest")}}}
    return {
        "/v1/images/generations": {"post": generate},
        "/v1/images/edits": {"post": edit},
        "/v1/models": {"get": _gives("OpenAI: models", "Models")},
        "/v1/models/{name}": {"get": _gives("OpenAI: a model", "Model", parameters=_path("name"), errors=(404,))},
    }


def _a1111() -> Schema:
    skip = [_query("skip_current_image", FLAG), _query("id_task", TEXT)]
    ends = [_query("id_task", TEXT)]
    options = {"get": _gives("A1111: options", "Options"), "post": _makes("A1111: set options", "Options", None, errors=_READING)}
    return {
        "/sdapi/v1/txt2img": {"post": _makes("A1111: images of a prompt", "A1111Request", "A1111Images")},
        "/sdapi/v1/img2img": {"post": _makes("A1111: images of an image", "A1111ImageRequest", "A1111Images")},
        "/sdapi/v1/progress": {"get": _gives("A1111: progress of the caller's own images", "Progress", parameters=skip)},
        "/sdapi/v1/interrupt": {"post": _does("A1111: end the caller's own images", ends)},
        "/sdapi/v1/skip": {"post": _does("A1111: end the caller's own images", ends)},
        "/sdapi/v1/png-info": {"post": _makes("A1111: settings in an image", "PngInfoRequest", "PngInfo", errors=_READING)},
        "/sdapi/v1/options": options,
        "/sdapi/v1/refresh-checkpoints": {"post": _does("A1111: nothing")},
        **{
            f"/sdapi/v1/{name}": {"get": _gives(f"A1111: {name}", None)}
            for name in ("sd-models", "samplers", "schedulers", "memory", *EMPTY)
        },
    }


def _state() -> Schema:
    ready = _gives("Whether requests are served now", "Readiness", errors=())
    ready["responses"]["503"] = _answer("They are not", _ref("Readiness"))
    health = _gives("Whether the process answers", "Health", errors=())
    for operation in (ready, health):
        operation["security"] = []
    metrics = _gives_file("Metrics for Prometheus", [], ("text/plain",))
    return {
        "/healthz": {"get": health},
        "/readyz": {"get": ready},
        "/metrics": {"get": metrics},
        "/openapi.json": {"get": _gives("This document", None)},
    }


def _schemas(limits: Limits) -> Schema:
    """The bodies by name. Those of our own requests are complete; other servers' clients may send what they like beside."""
    return {
        "RouteRequest": _closed(_route_fields(limits), {"latest": _text(64)}),
        "JobRequest": _closed(_route_fields(limits), _job_fields()),
        "ImageRequest": _open({**_openai_fields(limits), **_openai_own(limits)}, ("prompt",)),
        "EditRequest": _open({"image": _FILE, "mask": _FILE, "prompt": _text(limits.prompt_characters, least=1)}, ("image", "prompt")),
        "A1111Request": _open(_a1111_fields(limits), ("prompt",)),
        "A1111ImageRequest": _open({**_a1111_fields(limits), **_a1111_image_fields()}, ("prompt", "init_images")),
        "PngInfoRequest": _open({"image": _base64()}, ("image",)),
        "Options": _open({"sd_model_checkpoint": TEXT}),
        "Error": _error(),
        "ImageEvent": {"anyOf": [_object("type", "b64_json", "created_at"), _ref("Error")]},
        **{name: _object(*fields.split()) for name, fields in _ANSWERS.items()},
    }


def _route_fields(limits: Limits) -> Schema:
    side = {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_SIDE}
    return {
        "prompt": _text(limits.prompt_characters, least=1),
        "negative_prompt": _maybe(_text(limits.prompt_characters)),
        "max_ms": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "candidate": _maybe(_text(1000)),
        "scheduler": _maybe(_text(1000)),
        "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": LAST_SEED},
        "count": {"type": ["integer", "null"], "minimum": 1, "maximum": limits.count},
        "height": side,
        "width": side,
        "lam": {"type": ["number", "null"], "minimum": 0},
        "tolerance": {"type": ["number", "null"], "minimum": 0},
        "or_fastest": _maybe(FLAG),
        "plain_prompt": _maybe(FLAG),
        "init_image": _maybe(_base64()),
        "strength": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
        "mask": _maybe(_base64()),
    }


def _job_fields() -> Schema:
    return {
        "preview": _maybe(FLAG),
        "format": {"enum": ["png", "jpeg", "webp", None]},
        "quality": {"type": ["integer", "null"], "minimum": 1, "maximum": 100},
        "client": _maybe(_text(64)),
    }


def _openai_fields(limits: Limits) -> Schema:
    return {
        "prompt": _text(limits.prompt_characters, least=1),
        "model": _text(1000),
        "n": {"type": "integer", "minimum": 1, "maximum": limits.count},
        "size": {"type": "string", "pattern": "^(auto|[1-9][0-9]{1,4}x[1-9][0-9]{1,4})$"},
        "quality": {"enum": ["auto", "low", "medium", "high", "standard", "hd"]},
        "background": {"enum": ["auto", "opaque"]},
        "output_format": {"enum": ["png", "jpeg", "webp"]},
        "output_compression": {"type": "integer", "minimum": 0, "maximum": 100},
        "response_format": {"enum": ["b64_json", "url"]},
        "stream": FLAG,
        "partial_images": {"type": "integer", "minimum": 0, "maximum": 3},
    }


def _openai_own(limits: Limits) -> Schema:
    own = _route_fields(limits)
    return {name: own[name] for name in ("negative_prompt", "max_ms", "seed", "scheduler", "or_fastest")}


def _a1111_fields(limits: Limits) -> Schema:
    side = {"type": "integer", "minimum": 1, "maximum": MOST_SIDE}
    return {
        "prompt": _text(limits.prompt_characters, least=1),
        "negative_prompt": _text(limits.prompt_characters),
        "seed": {"type": "integer", "minimum": -1, "maximum": LAST_SEED},
        "batch_size": {"type": "integer", "minimum": 1, "maximum": 3},
        "n_iter": {"type": "integer", "minimum": 1, "maximum": 3},
        "width": side,
        "height": side,
        "model": _text(1000),
        "sampler_name": _text(1000),
        "scheduler": _text(1000),
        "override_settings": {"type": "object", "properties": {"sd_model_checkpoint": TEXT}},
        "max_ms": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "or_fastest": FLAG,
        "force_task_id": _text(128),
    }


def _a1111_image_fields() -> Schema:
    return {
        "init_images": {"type": "array", "items": _base64(), "minItems": 1},
        "denoising_strength": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "mask": _base64(),
        "inpainting_mask_invert": {"type": "integer", "minimum": 0, "maximum": 1},
    }


def _makes(
    summary: str, body: str | None, answer: str | None, *, status: int = 200, errors: tuple[int, ...] = (*_READING, *_MAKING)
) -> Schema:
    operation = _gives(summary, answer, errors=errors, status=status)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _does(summary: str, parameters: list[Schema] | None = None) -> Schema:
    return _gives(summary, None, parameters=parameters or [])


def _gives(
    summary: str, answer: str | None, *, parameters: list[Schema] | None = None, errors: tuple[int, ...] = (), status: int = 200
) -> Schema:
    wanted = ANY if answer is None else _ref(answer)
    failures = {str(code): _answer(_MEANING[code], _ref("Error")) for code in sorted({*_COMMON, *errors})}
    return {"summary": summary, "parameters": parameters or [], "responses": {str(status): _answer(summary, wanted), **failures}}


def _streams(summary: str, parameters: list[Schema], *, errors: tuple[int, ...] = ()) -> Schema:
    operation = _gives(summary, None, parameters=parameters, errors=errors)
    content = {"text/event-stream": {"schema": _event(JOB_EVENTS, "JobEvent")}}
    operation["responses"]["200"] = {"description": "Server-sent events, each as the schema says", "content": content}
    return operation


def _event(names: tuple[str, ...], data: str) -> Schema:
    """One event of a stream; the whole stream has no schema before version 3.2 of OpenAPI."""
    content = {"type": "string", "contentMediaType": "application/json", "contentSchema": _ref(data)}
    return {"type": "object", "properties": {"event": {"enum": list(names)}, "data": content, "id": TEXT}, "required": ["data"]}


def _gives_file(summary: str, parameters: list[Schema], types: tuple[str, ...]) -> Schema:
    operation = _gives(summary, None, parameters=parameters, errors=(404,) if parameters else ())
    operation["responses"]["200"] = {"description": summary, "content": {each: {"schema": ANY} for each in types}}
    return operation


def _answer(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error() -> Schema:
    fields = {"message": TEXT, "type": TEXT, "param": _maybe(TEXT), "code": TEXT, "retry_after_ms": WHOLE, "needed_ms": NUMBER}
    inner = {"type": "object", "properties": fields, "required": ["message", "type", "param", "code"]}
    return {"type": "object", "properties": {"error": inner}, "required": ["error"], "additionalProperties": False}


def _closed(fields: Schema, more: Schema) -> Schema:
    return {"type": "object", "properties": {**fields, **more}, "required": ["prompt"], "additionalProperties": False}


def _open(fields: Schema, required: tuple[str, ...] = ()) -> Schema:
    return {"type": "object", "properties": fields, "required": list(required)}


def _object(*names: str) -> Schema:
    return {"type": "object", "properties": dict.fromkeys(names, ANY), "required": list(names)}


def _text(most: int, *, least: int = 0) -> Schema:
    return {"type": "string", "minLength": least, "maxLength": most}


def _base64() -> Schema:
    return {
        "type": "string",
        "contentEncoding": "base64",
        "description": _PICTURE,
    }


def _maybe(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _path(name: str) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}]


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _header(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "schema": schema}
