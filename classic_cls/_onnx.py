"""A model in the ONNX format as a function from pixels to scores, run by onnxruntime on the CPU."""

import json
import os
from pathlib import Path

import numpy as np
from joblib import effective_n_jobs

PRODUCER = "classic_cls"  # of the files that export_onnx writes
_SIDE = 32  # pixels of a blank image, where the model leaves it open
_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(uint8)": np.uint8}


class Network:
    """An onnxruntime session, with what its input and output look like; a pickle of it holds the model's bytes."""

    def __init__(self, content, n_jobs):
        self._content, self._n_jobs = content, n_jobs
        self._session = session(content, n_jobs)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES or len(inputs[0].shape) not in (2, 3, 4):
            found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise ValueError(f"The model's inputs are {found}; expected one batch of images, float or uint8.")
        self.dtype, self._input = _DTYPES[inputs[0].type], inputs[0].name
        self.batch_size, *self.shape = (k if isinstance(k, int) and k > 0 else None for k in inputs[0].shape)
        self._output = _scores_output(outputs)
        about = self._session.get_modelmeta()
        self._about = about.custom_metadata_map if about.producer_name == PRODUCER else {}
        self.labels = self._labels()

    def __reduce__(self):
        return Network, (self._content, self._n_jobs)

    def _labels(self):
        """Return the labels of the outputs: those in our own file or a map, else their numbers; None if not known."""
        if "classes" in self._about:
            return np.array(json.loads(self._about["classes"]))
        if self._output.type.startswith("seq(map("):
            blank = np.zeros([self.batch_size or 1, *(k or _SIDE for k in self.shape)], self.dtype)
            return np.array(list(self._session.run([self._output.name], {self._input: blank})[0][0]))
        n_outputs = self._output.shape[1] if len(self._output.shape) > 1 else None
        return np.arange(max(2, n_outputs)) if isinstance(n_outputs, int) else None

    @property
    def scores_kind(self):
        """What the scores are, "probabilities" or "logits", if export_onnx has written the model, else None."""
        return {"probabilities": "probabilities", "decision values": "logits"}.get(self._about.get("scores"))

    def arranged(self, pixels, layout):
        """Return pixels (n, height, width, channels) in the order of the model's input, if it takes such images."""
        if len(self.shape) == 1:
            _check_shape(pixels.shape[1:], (None, None, None), self.shape[0])
            return pixels.reshape(len(pixels), -1)
        if len(self.shape) == 2:
            _check_shape(pixels.shape[1:], (*self.shape, 1))
            return pixels[..., 0]
        channels_first = self._layout(layout) == "NCHW"
        _check_shape(pixels.shape[1:], (*self.shape[1:], self.shape[0]) if channels_first else self.shape)
        return pixels.transpose(0, 3, 1, 2) if channels_first else pixels

    def _layout(self, layout):
        first, last = (self.shape[axis] in (1, 3) for axis in (0, 2))
        if layout != "auto":
            return layout
        if first == last:
            raise ValueError(
                f"The model takes images of shape {self._shown()}, which does not say where the channels are; "
                "give layout='NCHW' or 'NHWC'."
            )
        return "NCHW" if first else "NHWC"

    def _shown(self):
        return tuple("any" if k is None else k for k in self.shape)

    def run(self, inputs):
        """Return the model's scores, (n, n_classes), of at most `batch_size` inputs."""
        n, missing = len(inputs), (self.batch_size or len(inputs)) - len(inputs)
        inputs = np.pad(inputs, [(0, missing)] + [(0, 0)] * (inputs.ndim - 1)) if missing else inputs
        try:
            outputs = self._session.run([self._output.name], {self._input: np.ascontiguousarray(inputs)})
        except Exception as error:  # onnxruntime's have no base of their own
            raise ValueError(f"The model cannot be run on these images: {first_line(error)}") from error
        return _as_rows(outputs[0])[:n]


def model_bytes(model):
    """Return the model as bytes, with weights that lie in files beside it."""
    if isinstance(model, bytes):
        return model
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model is of type {type(model).__name__}; expected the path of an .onnx file, or its bytes.")
    if not Path(model).is_file():
        raise FileNotFoundError(f"There is no file {str(model)!r}.")
    onnx, _ = _import_onnx()
    try:
        return onnx.load(model).SerializeToString()
    except Exception as error:  # protobuf's or onnx's, of no common base; weights that lie elsewhere may be missing
        raise ValueError(f"{str(model)!r} cannot be read as an ONNX model: {first_line(error)}") from error


def first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _import_onnx():
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f'OnnxClassifier needs onnx and onnxruntime: pip install "classic_cls[onnx]" ({error}).'
        ) from error
    return onnx, onnxruntime


def session(content, n_jobs):
    _, onnxruntime = _import_onnx()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception
    if n_jobs is not None:
        options.intra_op_num_threads = effective_n_jobs(n_jobs)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's have no base of their own
        hint = " onnx.version_converter can lower the opset." if "opset" in str(error) else ""
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} cannot load the model: {first_line(error)}{hint}"
        ) from error


def _scores_output(outputs):
    """Return the first output that can hold scores: numbers, or as scikit-learn's converter has it, maps of them."""
    for output in outputs:
        if output.type in ("tensor(float)", "tensor(double)") or output.type.startswith("seq(map("):
            return output
    found = ", ".join(f"{each.name} {each.type}" for each in outputs)
    raise ValueError(f"The model's outputs are {found}; expected logits or probabilities, (n, n_classes) float.")


def _as_rows(scores):
    if isinstance(scores, list):
        return np.array([list(each.values()) for each in scores])
    if scores.ndim < 2 or max(scores.shape[2:], default=1) > 1:
        raise ValueError(f"The model's output has shape {scores.shape}; expected (n, n_classes).")
    return scores.reshape(scores.shape[:2])


def _check_shape(shape, wanted, n_features=None):
    height, width, n_channels = shape
    if wanted[2] not in (None, n_channels):
        hint = {1: " skimage.color.rgb2gray(X) makes them gray.", 3: " np.stack([X] * 3, -1) makes RGB of gray."}
        raise ValueError(
            f"The images have channels: {n_channels}; the model takes {wanted[2]}.{hint.get(wanted[2], '')}"
        )
    size = (wanted[0] or height, wanted[1] or width)
    if size != (height, width):
        raise ValueError(
            f"The images have {height} x {width} pixels; the model takes {size[0]} x {size[1]}. "
            f"Put Resize({size}) before it."
        )
    if n_features not in (None, height * width * n_channels):
        raise ValueError(
            f"The images have {height} x {width} x {n_channels} numbers; the model takes rows of {n_features}. "
            "Put Resize(size) before it."
        )
