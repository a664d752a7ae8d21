"""Instance and group norms of an ONNX model as means of means.

onnxruntime 1.31 sums a whole volume in one float32 accumulator: at 96³ voxels a network of sixteen instance norms is
off by 9e-5. The mean of the planes' means keeps the digits. A group norm is written as an instance norm of
``(B, groups, everything else)``; its planes are those of the tensor before it was reshaped.
"""

from __future__ import annotations

from typing import Any

__all__ = ["write_out_instance_norms"]


def write_out_instance_norms(model: Any) -> int:
    """Replace each ``InstanceNormalization`` of two or more spatial axes, or of such a tensor in groups; returns how
    many.

    Args:
        model: an ``onnx_ir.Model``, changed in place.
    """
    import onnx_ir as ir

    norms = [node for node in model.graph if node.op_type == "InstanceNormalization"]
    found = [(node, source) for node in norms if (source := _planes_of(node.inputs[0])) is not None]
    for node, source in found:
        tape = ir.tape.Tape()
        result = _written_out(tape, node, source)
        result.shape, result.type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], tape.nodes, node.outputs, [result])
    return len(found)


def _planes_of(x: Any) -> Any | None:
    """The tensor (B, C, *spatial) of two or more axes that is normalised, as it is or reshaped into groups."""
    if x.shape is not None and x.shape.rank() > 3:
        return x
    node = x.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Reshape" else None
    return source if source is not None and source.shape is not None and source.shape.rank() > 3 else None


def _written_out(tape: Any, node: Any, source: Any) -> Any:
    import numpy as np
    import onnx_ir as ir

    x, scale, bias = node.inputs
    rank, groups = source.shape.rank(), x is not source

    def constant(values: Any, dtype: Any) -> Any:
        return tape.op("Constant", [], {"value": ir.tensor(np.asarray(values, dtype))})

    plane = constant([rank - 2, rank - 1], np.int64)
    others = constant(list(range(2, rank - 2)), np.int64)
    whole = tape.op("Shape", [source]) if groups else None
    in_groups = constant([0, scale.shape[0], -1], np.int64) if groups else None
    last = constant([2], np.int64) if groups else None

    def mean(value: Any) -> Any:
        of_planes = tape.op("ReduceMean", [value, plane], {"keepdims": 1})
        if groups:
            return tape.op("ReduceMean", [tape.op("Reshape", [of_planes, in_groups]), last], {"keepdims": 1})
        return of_planes if rank == 4 else tape.op("ReduceMean", [of_planes, others], {"keepdims": 1})

    per_channel = constant([1, -1, *[1] * (1 if groups else rank - 2)], np.int64)
    centred = tape.op("Sub", [x, mean(source)])
    squares = tape.op("Mul", [centred, centred])
    variance = mean(tape.op("Reshape", [squares, whole]) if groups else squares)
    epsilon = constant(node.attributes["epsilon"].value if "epsilon" in node.attributes else 1e-5, np.float32)
    normal = tape.op("Div", [centred, tape.op("Sqrt", [tape.op("Add", [variance, epsilon])])])
    scaled = tape.op("Mul", [normal, tape.op("Reshape", [scale, per_channel])])
    return tape.op("Add", [scaled, tape.op("Reshape", [bias, per_channel])])
