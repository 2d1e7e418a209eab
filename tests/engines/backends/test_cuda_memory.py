"""Device memory: arrays come back as they were sent, memory is reused, copies are counted, and an error says what is missing."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.backends.tensorrt import cuda_memory
from costroute_rt.engines.backends.tensorrt.cuda_driver import CudaDriver
from costroute_rt.engines.backends.tensorrt.cuda_memory import open_cuda
from costroute_rt.engines.backends.tensorrt.pycuda_driver import PycudaDriver
from costroute_rt.error import BackendError, Reason
from tests.engines import fake_cuda
from tests.engines.fake_cuda import FakeBindings, FakeGpu, FakePycuda, make_memory, needs_cuda_core, needs_no_driver

LARGE = np.arange(100_000, dtype=np.float32)
"""More than the driver copies by itself before it returns."""


@pytest.fixture(params=["cuda.core", "pycuda"])
def through(request: pytest.FixtureRequest) -> str:
    """What speaks to the driver."""
    return str(request.param)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Memory is opened anew, and not kept for other tests."""
    open_cuda.cache_clear()
    yield
    open_cuda.cache_clear()


@pytest.mark.parametrize("shape", [(), (0,), (8,), (3, 5), (2, 4, 64, 64), (1, 256, 256, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
def test_an_array_comes_back_as_it_went(shape: tuple[int, ...], dtype: type, through: str) -> None:
    (memory, _), array = make_memory(through), (np.random.default_rng(0).random(shape) * 100).astype(dtype)
    with memory.using():
        value = memory.to_device(array)
        assert (value.shape, value.dtype) == (shape, array.dtype)
        back = memory.to_host(value)
    assert (back.shape, back.dtype) == (shape, array.dtype)
    np.testing.assert_array_equal(back, array)


def test_a_strided_array_is_copied_in_its_order(through: str) -> None:
    (memory, _), array = make_memory(through), np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with memory.using():
        np.testing.assert_array_equal(memory.to_host(memory.to_device(array.transpose(2, 0, 1))), array.transpose(2, 0, 1))


def test_copies_are_counted_with_their_bytes(through: str) -> None:
    memory, _ = make_memory(through)
    with memory.using():
        value = memory.to_device(np.zeros((2, 4), np.float32))
        memory.to_device(np.zeros(3, np.uint8))
        memory.to_host(value)
    found = memory.transfers
    assert (found.to_device, found.to_device_bytes, found.to_host, found.to_host_bytes) == (2, 35, 1, 32)


def test_large_arrays_share_pinned_memory_and_wait_for_each_other(through: str) -> None:
    memory, gpu = make_memory(through)
    with memory.using():
        memory.to_device(np.zeros(100, np.float32))
        assert gpu.calls == ["copy"]
        gpu.calls.clear()
        first = memory.to_device(LARGE)
        second = memory.to_device(LARGE + 1)
        assert gpu.calls == ["copy", "Stream.record", "Event.sync", "copy", "Stream.record"]
        pinned = memory._pinned[0]
        np.testing.assert_array_equal(memory.to_host(first), LARGE)
        np.testing.assert_array_equal(memory.to_host(second), LARGE + 1)
        assert memory._pinned[0] == pinned
        memory.to_device(np.zeros((2, *LARGE.shape), np.float32))
    sizes = [len(buffer) for buffer in gpu.buffers.values()]
    assert (sizes.count(1 << 19), sizes.count(1 << 20)) == (0, 1)  # the larger takes the place of the smaller


def test_memory_that_is_released_is_used_again_and_returned_to_the_system_on_request(through: str) -> None:
    memory, gpu = make_memory(through)
    with memory.using():
        first, second = memory.to_device(LARGE), memory.to_device(LARGE)
        address = first.pointer
        assert second.pointer != address
        del first
        assert memory.to_device(LARGE).pointer == address
        del second
        memory.trim()
    assert gpu.buffers == {}


def test_unused_memory_is_returned_to_the_system_before_there_is_too_little(through: str) -> None:
    memory, _ = make_memory(through, capacity_bytes=1100)
    with memory.using():
        kept = [memory.allocate(512)]
        memory.allocate(256)  # and released at once
        kept.append(memory.allocate(400))
        with pytest.raises(BackendError, match=r"work on the NVIDIA GPU, found .*memory.*; close what else uses the GPU") as caught:
            memory.allocate(512)
    assert caught.value.reason is Reason.DRIVER


def test_recorded_work_is_done_at_each_launch_and_not_before() -> None:
    memory, gpu = make_memory()
    with memory.using():
        source, target = memory.to_device(np.ones(4, np.float32)), memory.to_device(np.zeros(4, np.float32))
        graph = memory.capture(lambda: memory.copy(source.pointer, target.pointer, source.nbytes))
        assert not memory.to_host(target).any()
        graph.launch()
        assert memory.to_host(target).all()
        graph.close()
    assert [call for call in gpu.calls if call.startswith("cuGraph")] == ["cuGraphDestroy", "cuGraphLaunch", "cuGraphExecDestroy"]


def test_work_that_fails_while_it_is_recorded_ends_the_recording() -> None:
    memory, gpu = make_memory()
    with memory.using():
        with pytest.raises(ZeroDivisionError):
            memory.capture(lambda: 1 / 0)
        assert gpu.recording is None
        memory.capture(lambda: None)
    assert gpu.calls == ["cuGraphDestroy"] * 2


def test_an_array_that_goes_while_work_is_recorded_is_freed_afterwards() -> None:
    memory, gpu = make_memory()
    with memory.using():
        arrays = [memory.to_device(np.ones(4, np.float32))]
        memory.capture(arrays.clear)
        memory.trim()
    assert gpu.buffers == {}


def test_a_recording_that_cuda_refuses_is_an_error_with_its_reason() -> None:
    memory, gpu = make_memory()

    def spoil() -> None:
        gpu.is_capture_invalid = True

    with memory.using(), pytest.raises(BackendError, match="cuStreamEndCapture, found CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        memory.capture(spoil)
    assert gpu.recording is None


def test_the_gpu_is_current_while_it_is_used_and_what_was_before_is_again_afterwards(through: str) -> None:
    memory, gpu = make_memory(through)
    found = []

    def use() -> None:
        for _ in range(2):
            with memory.using():
                found.append(gpu.contexts[-1])
                with memory.using():
                    found.append(gpu.contexts[-1])
                found.append(gpu.contexts[-1])

    for before in ([], ["the application's"]):
        gpu.contexts[:] = before
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert gpu.contexts == before
    assert found == ["the primary context"] * 12
    with pytest.raises(ZeroDivisionError), memory.using():
        1 / 0  # noqa: B018
    assert gpu.contexts == ["the application's"]


def test_a_call_of_the_driver_that_fails_is_named() -> None:
    memory, _ = make_memory()
    memory.driver._bindings.result = FakeBindings.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS  # type: ignore[union-attr]
    with pytest.raises(BackendError, match="CUDA's cuCtxGetCurrent, found CUDA_ERROR_ILLEGAL_ADDRESS") as caught, memory.using():
        pass
    assert caught.value.reason is Reason.DRIVER


def install_pycuda(monkeypatch: pytest.MonkeyPatch, cuda: FakePycuda | None) -> None:
    """pycuda without cuda.core, or neither."""
    package = None if cuda is None else SimpleNamespace(driver=cuda, tools=cuda)
    for name, module in {"cuda": None, "pycuda": package, "pycuda.driver": cuda, "pycuda.tools": cuda}.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]


@pytest.mark.usefixtures("fresh")
def test_pycuda_is_taken_where_cuda_core_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    install_pycuda(monkeypatch, FakePycuda(gpu))
    gpu.contexts.append("the application's")
    memory = open_cuda()
    assert open_cuda() is memory
    assert isinstance(memory.driver, PycudaDriver)
    assert memory.stream_handle == 7
    assert memory.room_bytes() == (1 << 29, 1 << 30)
    assert gpu.contexts == ["the application's"]
    with pytest.raises(BackendError, match="found pycuda, which records none; install cuda-core and cuda-bindings") as caught:
        memory.capture(lambda: None)
    assert caught.value.install == ("cuda-core", "cuda-bindings")


@pytest.mark.usefixtures("fresh")
def test_a_gpu_that_cannot_be_opened_is_reported_with_the_librarys_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakePycuda(FakeGpu())

    def fail() -> None:
        raise fake.Error("cuInit failed: no CUDA-capable device is detected")

    fake.init = fail
    install_pycuda(monkeypatch, fake)
    monkeypatch.setattr(cuda_memory, "has_cuda_library", lambda: True)
    with pytest.raises(BackendError, match="an NVIDIA GPU, found cuInit failed: no CUDA-capable device is detected"):
        open_cuda()


@needs_cuda_core
@needs_no_driver
@pytest.mark.usefixtures("fresh")
def test_a_missing_driver_is_named() -> None:
    with pytest.raises(BackendError, match=r"an NVIDIA GPU, found no NVIDIA driver.*install the NVIDIA driver") as caught:
        open_cuda()
    assert (caught.value.exit_code, caught.value.reason) == (6, Reason.DRIVER)


@pytest.mark.usefixtures("fresh")
def test_without_cuda_core_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    install_pycuda(monkeypatch, None)
    with pytest.raises(BackendError, match=r"no usable cuda.core \(.*cuda.*\); install cuda-core and cuda-bindings") as caught:
        open_cuda()
    assert caught.value.install == ("cuda-core", "cuda-bindings")


def test_it_is_opened_once_for_the_process(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    driver = make_memory()[0].driver
    monkeypatch.setattr(CudaDriver, "open", lambda: driver)
    assert open_cuda() is open_cuda()


@needs_cuda_core
@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (fake_cuda.FakeDevice, "Device"),
        (fake_cuda.FakeStream, "Stream"),
        (fake_cuda.FakeEvent, "Event"),
        (fake_cuda.FakeBuffer, "Buffer"),
        (fake_cuda.FakeDeviceMemoryResource, "DeviceMemoryResource"),
        (fake_cuda.FakeLegacyPinnedMemoryResource, "LegacyPinnedMemoryResource"),
        (FakeBindings, "driver"),
    ],
)
def test_the_fake_takes_and_has_what_the_installed_cuda_core_does(fake: type, real: str) -> None:
    from cuda import core
    from cuda.bindings import driver

    found: Any = driver if real == "driver" else getattr(core, real)
    for name, value in vars(fake).items():
        if name.startswith("_") or inspect.isclass(value):
            continue
        assert hasattr(found, name)
        if callable(value) or isinstance(value, staticmethod):
            ours, theirs = (inspect.signature(getattr(each, name)).parameters for each in (fake, found))
            known = {each.name: (each.kind, each.default) for each in theirs.values()}
            ours = {each.name: (each.kind, each.default) for each in ours.values() if real != "driver" or each.name != "self"}
            assert ours == {each: known[each] for each in ours}
            assert all(known[each][1] is not inspect.Parameter.empty for each in set(known) - set(ours))


@needs_cuda_core
def test_cuda_core_has_the_classes_that_the_driver_takes() -> None:
    from cuda import core
    from cuda.bindings import driver

    assert isinstance(core.Device.memory_resource, property)
    assert core.StreamOptions().nonblocking is True
    for fake, real in ((FakeBindings.CUresult, driver.CUresult), (FakeBindings.CUstreamCaptureMode, driver.CUstreamCaptureMode)):
        assert {each.name: each.value for each in fake} == {each.name: real(each.value).value for each in fake}
