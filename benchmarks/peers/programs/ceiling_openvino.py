"""What the CPU can do at most by OpenVINO: floating-point operations a second of a large matrix product, by precision.

Takes no settings: the JSON object on its command line is not read.
"""

from __future__ import annotations

import json
import time
from typing import Any

SIZE, REPEATS = 4096, 7
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def measure_product(core: Any, precision: str, size: int = SIZE) -> float:
    """The most operations a second of a square matrix product with a constant matrix, as networks have them."""
    import numpy as np
    import openvino as ov

    matrix = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    given = ov.opset13.parameter([size, size], np.float32)
    model = ov.Model([ov.opset13.matmul(given, ov.opset13.constant(matrix), False, False)], [given])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"})
    if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() != precision:
        raise RuntimeError(f"OpenVINO does not compute in {precision} here")
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(matrix))
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        request.infer()
        times.append(time.perf_counter() - began)
    return float(2 * size**3 / min(times))


def main() -> None:
    from costroute_rt.engines.machine.telemetry import without_openvino_telemetry

    with without_openvino_telemetry():
        import openvino as ov

    core, report = ov.Core(), {}
    for name, precision in _PRECISIONS.items():
        if name == "float32" or "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            report[name] = measure_product(core, precision)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
