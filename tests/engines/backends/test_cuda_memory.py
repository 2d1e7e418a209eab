"""Device memory: what goes in comes out, buffers are used again, copies are counted, and without a driver one is told so."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.backends.tensorrt import cuda_memory
from costroute_rt.engines.backends.tensorrt.cuda_memory import find_obstacle, open_cuda
from costroute_rt.engines.backends.tensorrt.pycuda_driver import PycudaDriver
from costroute_rt.error import BackendError
from tests.engines.fake_cuda import FakeDriver, FakePycuda, make_memory


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def through(request: pytest.FixtureRequest) -> str:
    """What speaks to the driver."""
    return str(request.param)


@pytest.mark.parametrize("shape", [(), (0,), (8,), (3, 5), (2, 4, 64, 64), (1, 256, 256, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
def test_an_array_comes_back_as_it_went(shape: tuple[int, ...], dtype: type, through: str) -> None:
    (memory, _), array = make_memory(through), (np.random.default_rng(0).random(shape) * 100).astype(dtype)
    value = memory.to_device(array)
    assert (value.shape, value.dtype) == (shape, array.dtype)
    back = memory.to_host(value)
    assert (back.shape, back.dtype) == (shape, array.dtype)
    np.testing.assert_array_equal(back, array)


def test_a_strided_array_is_copied_in_its_order(through: str) -> None:
    (memory, _), array = make_memory(through), np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(memory.to_host(memory.to_device(array.transpose(2, 0, 1))), array.transpose(2, 0, 1))


def test_copies_are_counted_with_their_bytes(through: str) -> None:
    memory, _ = make_memory(through)
    value = memory.to_device(np.zeros((2, 4), np.float32))
    memory.to_device(np.zeros(3, np.uint8))
    memory.to_host(value)
    found = memory.transfers
    assert (found.to_device, found.to_device_bytes, found.to_host, found.to_host_bytes) == (2, 35, 1, 32)


def test_a_buffer_let_go_is_used_again_and_given_back_when_asked(through: str) -> None:
    memory, driver = make_memory(through)
    first = memory.to_device(np.zeros(100, np.float32))
    address = first.pointer
    second = memory.to_device(np.zeros(100, np.float32))
    assert second.pointer != address
    del first
    assert memory.to_device(np.ones(100, np.float32)).pointer == address
    del second
    memory.trim()
    assert driver.buffers == {}


def test_memory_that_nobody_holds_is_given_back_before_there_is_none(through: str) -> None:
    memory, _ = make_memory(through, capacity_bytes=1100)
    memory.allocate(512)
    memory.free(memory.allocate(256), 256)
    memory.allocate(400)
    with pytest.raises(BackendError, match="out of memory"):
        memory.allocate(512)


def test_recorded_work_is_done_at_each_launch_and_not_before() -> None:
    memory, _ = make_memory()
    source, target = memory.to_device(np.ones(4, np.float32)), memory.to_device(np.zeros(4, np.float32))
    graph = memory.capture(lambda: memory.copy(source.pointer, target.pointer, source.nbytes))
    assert not memory.to_host(target).any()
    graph.launch()
    assert memory.to_host(target).all()
    assert memory.time_ms(graph.launch) == 1.5


def test_work_that_fails_while_it_is_recorded_leaves_no_graph() -> None:
    memory, driver = make_memory()
    with pytest.raises(ZeroDivisionError):
        memory.capture(lambda: 1 / 0)
    assert driver.calls.count("cuGraphDestroy") == 1
    memory.capture(lambda: None)
    assert driver.calls.count("cuGraphDestroy") == 2


def test_pinned_memory_goes_with_its_event(through: str) -> None:
    memory, driver = make_memory(through)
    memory.to_device(np.zeros(100_000, np.float32))
    memory.trim()
    calls = driver.calls
    assert calls.count("cuEventCreate") == calls.count("cuEventDestroy") == 1
    assert driver.buffers == {}


def test_the_gpu_is_current_while_it_is_used_and_what_was_before_is_again_afterwards(through: str) -> None:
    memory, driver = make_memory(through)
    driver.contexts.append("the application's")
    found = []

    def use() -> None:
        for _ in range(2):
            with memory.using():
                found.append(driver.contexts[1:])
                with memory.using():
                    found.append(driver.contexts[1:])

    for _ in range(2):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert found == [[memory.context]] * 8
    with pytest.raises(ZeroDivisionError), memory.using():
        1 / 0  # noqa: B018
    assert driver.contexts == ["the application's"]


def test_pycuda_is_taken_where_cuda_bindings_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    played = FakeDriver()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    package = SimpleNamespace(driver=FakePycuda(played))
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
    played.contexts.append("the application's")
    open_cuda.cache_clear()
    try:
        memory = open_cuda()
    finally:
        open_cuda.cache_clear()
    assert memory.stream_handle == 7
    assert memory.room_bytes() == (1 << 29, 1 << 30)
    assert played.contexts == ["the application's"]
    with pytest.raises(BackendError, match=r"found pycuda, which records none; install cuda-bindings"):
        memory.capture(lambda: None)


def test_a_gpu_that_pycuda_cannot_open_tells_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakePycuda(FakeDriver())

    def fail(_: int) -> None:
        raise fake.Error("cuInit failed: no CUDA-capable device is detected")

    fake.init = fail
    monkeypatch.setattr(cuda_memory, "_find_driver", lambda: PycudaDriver(fake))  # type: ignore[arg-type]
    open_cuda.cache_clear()
    with pytest.raises(BackendError, match="an NVIDIA GPU, found cuInit failed: no CUDA-capable device is detected"):
        open_cuda()


def test_without_a_driver_it_is_the_driver_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings: pip install costroute-rt[tensorrt-rtx]")
    from cuda.bindings import driver

    def fail(*_: Any) -> None:
        raise RuntimeError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(driver, "cuInit", fail)
    open_cuda.cache_clear()
    with pytest.raises(BackendError, match=r"an NVIDIA GPU, found no NVIDIA driver.*install the NVIDIA driver") as caught:
        open_cuda()
    assert caught.value.exit_code == 6
    assert find_obstacle() is not None


def test_a_driver_without_a_gpu_tells_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings: pip install costroute-rt[tensorrt-rtx]")
    import cuda.bindings

    driver = SimpleNamespace(
        CUresult=FakeDriver.CUresult, cuInit=lambda _: (100,), cuGetErrorString=lambda _: (0, b"no CUDA-capable device is detected")
    )
    monkeypatch.setattr(cuda.bindings, "driver", driver)
    open_cuda.cache_clear()
    with pytest.raises(BackendError, match="found no CUDA-capable device is detected"):
        open_cuda()


def test_no_cuda_bindings_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    open_cuda.cache_clear()
    with pytest.raises(BackendError, match="install cuda-bindings"):
        cuda_memory.open_cuda()
