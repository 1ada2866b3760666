"""ONNX files: a small graph and its weights beside it, which other graphs may share."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from moebius.deploy.forms import graph_forms
from moebius.deploy.graphs import Graph

OPSET = 18
ALIGNMENT = 64
HALVED_FROM = 1024
"""Elements from which a weight is stored in half: the many small ones cost little and matter."""

Precision = Literal["fp16", "fp32"]


def require_onnx() -> None:
    """A ValueError in one line where an optional library is missing."""
    for name in ("onnx", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise ValueError(
                f"{name} is not installed: pip install 'moebius-inpainting[export]'"
            ) from None


def trace_onnx(graph: Graph) -> Any:
    """An `onnx.ModelProto` of the graph, weights inside, sizes dynamic."""
    import onnx

    names = [port.name for port in graph.inputs]
    axes = {
        port.name: {i: side for i, side in enumerate(port.shape) if isinstance(side, str)}
        for port in (*graph.inputs, graph.output)
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        graph_forms(),
        _more_operators(),
    ):
        # The tracer warns wherever Python reads a shape; the forms are checked at other sizes.
        warnings.simplefilter("ignore")
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            graph.module.eval(),
            graph.example(2, *graph.sides()),
            str(path),
            input_names=names,
            output_names=[graph.output.name],
            dynamic_axes={name: dims for name, dims in axes.items() if dims},
            opset_version=OPSET,
            # The newer exporter gives the same graph and takes some twenty times as long.
            dynamo=False,
        )
        model = onnx.load(path)
    for node in model.graph.node:
        node.ClearField("doc_string")  # where each came from, larger than the graph itself
    return model


def write_onnx(model: Any, folder: Path, name: str, precision: Precision) -> Any:
    """Writes `name.onnx` and its weights, `name.data`; returns the model that refers to them.

    With fp16, large weights are stored in half precision and widened when the graph is loaded;
    arithmetic is float32 in either case.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    data = f"{name}.data"
    with open(folder / data, "wb") as file:
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if precision == "fp16" and _is_large(values):
                original = tensor.name
                tensor.name = f"{original}_half"
                casts.append(
                    helper.make_node("Cast", [tensor.name], [original], to=TensorProto.FLOAT)
                )
                values = _halved(values, original)
            _externalise(tensor, values, file, data)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return model


def run_onnx(path: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """A graph's first output, by onnxruntime on the CPU."""
    return open_session(path).run(None, inputs)[0]


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def disagreement(graph: Graph, path: Path, batch: int, rows: int, columns: int) -> float:
    """Largest difference between onnxruntime and PyTorch, relative to the largest output."""
    inputs = graph.example(batch, rows, columns, seed=1)
    with torch.no_grad():
        expected = graph.module(*inputs).numpy()
    names = [port.name for port in graph.inputs]
    found = run_onnx(path, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@contextmanager
def _more_operators() -> Iterator[None]:
    """Teaches the tracing exporter `mT`, `rms_norm`, and `unflatten` with dynamic sizes."""
    from torch.onnx import register_custom_op_symbolic, unregister_custom_op_symbolic
    from torch.onnx.symbolic_helper import parse_args

    def transpose(graph: Any, x: Any) -> Any:
        rank = x.type().dim()
        assert rank is not None, "mT of a tensor of unknown rank"
        return graph.op("Transpose", x, perm_i=[*range(rank - 2), rank - 1, rank - 2])

    @parse_args("v", "is", "v", "f")
    def rms_norm(graph: Any, x: Any, shape: list[int], weight: Any, eps: float) -> Any:
        assert len(shape) == 1, "RMSNorm over more than the last dimension"
        square = graph.op("Mul", x, x)
        last = graph.op("Constant", value_t=torch.tensor([-1]))
        mean = graph.op("ReduceMean", square, last)
        shifted = graph.op("Add", mean, graph.op("Constant", value_t=torch.tensor(eps)))
        scaled = graph.op("Div", x, graph.op("Sqrt", shifted))
        return graph.op("Mul", scaled, weight)

    @parse_args("v", "i", "v")
    def unflatten(graph: Any, x: Any, dim: int, sizes: Any) -> Any:
        rank = x.type().dim()
        before = graph.op("Shape", x, start_i=0, end_i=dim % rank)
        after = graph.op("Shape", x, start_i=dim % rank + 1)
        return graph.op("Reshape", x, graph.op("Concat", before, sizes, after, axis_i=0))

    symbols: dict[str, Any] = {
        "aten::mT": transpose,
        "aten::rms_norm": rms_norm,
        "aten::unflatten": unflatten,
    }
    for name, symbol in symbols.items():
        register_custom_op_symbolic(name, symbol, OPSET)
    try:
        yield
    finally:
        for name in symbols:
            unregister_custom_op_symbolic(name, OPSET)


def _is_large(values: np.ndarray) -> bool:
    return values.dtype == np.float32 and values.size >= HALVED_FROM


def _halved(values: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(f"weight {name} does not fit half precision: export with --dtype fp32")
    return half


def _externalise(tensor: Any, values: np.ndarray, file: Any, location: str) -> None:
    """Moves a tensor's values to the end of a file and leaves the place."""
    from onnx import TensorProto, helper

    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    place = {"location": location, "offset": file.tell(), "length": values.nbytes}
    file.write(np.ascontiguousarray(values).tobytes())
    kept = TensorProto(
        name=tensor.name,
        dims=values.shape,
        data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in place.items():
        kept.external_data.add(key=key, value=str(value))
    tensor.CopyFrom(kept)
