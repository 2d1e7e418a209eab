"""A key covers everything an engine depends on, and says how it differs from another."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest

from costroute_rt.engines.backends.key import ANY_DRIVER, EngineKey

KEY = EngineKey(**{field.name: f"some {field.name}" for field in fields(EngineKey)})
EXPECTED = {
    "graph", "weights_sha256", "graph_sha256", "backend", "backend_version", "provider", "precision", "shapes", "options", "device",
    "driver", "os",
}  # fmt: skip


def test_the_key_covers_what_the_design_lists() -> None:
    assert {field.name for field in fields(EngineKey)} == EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_any_field_changes_the_digest_and_is_named(name: str) -> None:
    other = replace(KEY, **{name: "other"})
    assert other.digest != KEY.digest
    assert [(d.field, d.wanted, d.found) for d in KEY.differences(other)] == [(name, f"some {name}", "other")]


def test_the_digest_is_stable_and_fit_for_a_file_name() -> None:
    assert KEY.digest == replace(KEY).digest
    assert re.fullmatch("[0-9a-f]{32}", KEY.digest)


def test_a_key_names_the_setup_of_such_engines() -> None:
    names = ("backend", "provider", "precision")
    assert KEY.setup == {**{name: f"some {name}" for name in names}, "target": ""}
    portable = replace(KEY, backend="tensorrt-rtx", provider="cuda", precision="float16", driver=ANY_DRIVER, device="ampere+")
    assert portable.setup == {"backend": "tensorrt-rtx", "provider": "cuda", "precision": "float16", "target": "ampere+"}
