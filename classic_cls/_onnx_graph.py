"""An ONNX graph that is written down node by node, as one writes array code."""

from functools import partial
from typing import NamedTuple

import numpy as np
from onnx import helper, numpy_helper

from . import __version__
from ._onnx import PRODUCER

OPSETS = {"": 17, "ai.onnx.ml": 3}
_IR_VERSION = 8  # the one that came with opset 17


class Images(NamedTuple):
    """The name of a batch of images in a graph, and what is known of it before there are images."""

    name: str
    dtype: np.dtype  # uint8 or float32
    shape: tuple  # (None, height, width, channels)


class Graph:
    """Nodes and constants, in the order in which they are made.

    ``graph.Sub(a, b)`` adds a node and returns the name of its output. Inputs are such names, or arrays, which become
    constants of their dtype.
    """

    def __init__(self):
        self._nodes, self._constants = [], []

    def __getattr__(self, operator):
        if not operator[0].isupper():
            raise AttributeError(operator)
        return partial(self._add, operator)

    def _add(self, operator, *inputs, domain="", **attributes):
        inputs = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name, domain=domain, **attributes))
        return name

    def _constant(self, value):
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def cast(self, x, dtype):
        """Convert to a NumPy dtype."""
        return self.Cast(x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, x, *shape):
        """Give every item of the batch another shape."""
        return self.Reshape(x, np.array([0, *shape]))  # 0: as many as there are

    def include(self, model, x):
        """Add the nodes of another model with one input, which becomes `x`; return the names of its outputs."""
        from onnx.compose import add_prefix

        other = add_prefix(model, f"part_{len(self._nodes)}_").graph
        self._nodes.append(helper.make_node("Identity", [x], [other.input[0].name]))
        self._nodes += other.node
        self._constants += other.initializer
        return [output.name for output in other.output]

    def model(self, inputs, outputs, metadata):
        """Return the whole as a model; `outputs` are value infos by the name of the node's output."""
        for name, value in outputs.items():
            self._nodes.append(helper.make_node("Identity", [name], [value.name]))
        graph = helper.make_graph(self._nodes, PRODUCER, inputs, list(outputs.values()), self._constants)
        opsets = [helper.make_opsetid(domain, number) for domain, number in OPSETS.items()]
        about = {"producer_name": PRODUCER, "producer_version": __version__}
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, **about)
        helper.set_model_props(model, metadata)
        return model


def value_info(name, dtype, *shape):
    """Describe an input or output of n items."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["n", *shape])
