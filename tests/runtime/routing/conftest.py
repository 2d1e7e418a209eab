"""Fixtures of the router's tests."""

from __future__ import annotations

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.routing.router import Router
from tests.small_router import make_router


@pytest.fixture
def router(bundle: Bundle) -> Router:
    return make_router(bundle.pool)
