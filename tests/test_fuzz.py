"""Whatever comes in, with whatever parameters: finite features, the same from any memory and body, or a clear refusal.

``python -m pytest tests/test_fuzz.py --hypothesis-profile=thorough`` draws 10,000 inputs for each transformer.
"""

import warnings
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from test_contract import OF_ROWS, QUICK, TRANSFORMERS

from classic_cls import HOG, ColorHistogram, DenseSIFT, KeypointSIFT, KMeans, RBFNystroem, Resize, _native

ONE, TWO = st.integers(1, 12), st.tuples(st.integers(1, 12), st.integers(1, 12))
GRID = st.tuples(st.integers(1, 4), st.integers(1, 4))
EITHER = st.booleans()
POWER = st.floats(0.1, 1)
SIFT = st.sampled_from([DenseSIFT(), DenseSIFT(step=3, bin_size=(2, 5)), KeypointSIFT(), None])
ENCODER = {"descriptor": SIFT, "n_dims": st.one_of(ONE, st.none()), "pyramid_levels": st.integers(1, 3), "power": POWER}
# What a parameter may be. Its other values are tried as well, now and then: see WRONG.
PARAMETERS = {
    "HOG": {
        "orientations": st.integers(1, 20),
        "pixels_per_cell": ONE | TWO,
        "cells_per_block": st.integers(1, 4) | GRID,
        "block_norm": st.sampled_from(["L1", "L1-sqrt", "L2", "L2-Hys"]),
        "transform_sqrt": EITHER,
    },
    "ColorHistogram": {
        "bins": st.integers(1, 16) | st.tuples(ONE, ONE, ONE),
        "color_space": st.sampled_from(["rgb", "hsv", "lab", "opponent", "gray"]),
        "joint": EITHER,
        "grid": ONE | GRID,
        "norm": st.sampled_from([None, "l1", "l2", "hellinger"]),
    },
    "DenseSIFT": {
        "step": ONE,
        "bin_size": ONE | TWO,
        "contrast_threshold": st.sampled_from([0, 0.005, 0.1]),
        "root": EITHER,
    },
    "KeypointSIFT": {
        "n_features": st.integers(0, 50),
        "contrast_threshold": st.floats(0, 0.2),
        "edge_threshold": st.floats(1, 20),
        "sigma": st.floats(0.5, 3),
        "root": EITHER,
    },
    "BagOfVisualWords": {
        "descriptor": SIFT,
        "n_words": st.integers(1, 30),
        "pyramid_levels": st.integers(1, 3),
        "norm": st.sampled_from([None, "l1", "l2", "hellinger"]),
        "assignment": st.sampled_from(["hard", "soft", "llc"]),
        "pooling": st.sampled_from(["auto", "sum", "max"]),
        "n_neighbors": st.integers(1, 8),
        "beta": st.floats(0.01, 100),
        "regularization": st.floats(1e-6, 1),
        "samples_per_word": ONE,
    },
    "VLAD": ENCODER
    | {"n_words": ONE, "norm": st.sampled_from(["intra", "l2", None]), "samples_per_word": st.integers(1, 50)},
    "FisherVector": ENCODER
    | {
        "n_components": st.integers(1, 4),
        "append_position": EITHER,
        "norm": st.sampled_from(["l2", None]),
        "samples_per_component": st.integers(1, 100),
    },
    "PatchKMeans": {
        "n_clusters": st.integers(1, 20),
        "patch_size": st.integers(1, 8) | GRID,
        "step": st.integers(1, 4),
        "pool": st.integers(1, 4) | GRID | st.lists(GRID, min_size=1, max_size=3),
        "activation": st.sampled_from(["triangle", "soft_threshold", "hard"]),
        "dictionary": st.sampled_from(["kmeans", "spherical", "patches"]),
        "alpha": st.floats(0, 1),
        "whitening_epsilon": st.floats(1e-3, 1),
        "samples_per_cluster": st.integers(1, 100),
    },
    "KMeans": {
        "n_clusters": ONE,
        "init": st.just("k-means++"),
        "n_init": st.integers(1, 3),
        "max_iter": ONE,
        "tol": st.floats(0, 1),
        "batch_size": ONE | st.none(),
    },
    "RBFNystroem": {
        "n_components": ONE,
        "bandwidth": st.floats(0.01, 100),
        "standardize": EITHER,
        "n_dims": ONE | st.none(),
    },
    "Resize": {"size": ONE | TWO},
    "FlipAverage": {
        "transformer": st.sampled_from([HOG(), ColorHistogram(), Resize(9)]),
        "flips": st.sampled_from(["auto", True, False]),
        "max_images": ONE,
    },
}
WRONG = st.sampled_from([0, -1, 1000, 1.5, "many", None, np.nan, np.inf, (0, 4), (1, 2, 3, 4), [], (), True, b"x"])
OTHERS = {"image_shape", "n_jobs", "random_state"}
LEARNED = {"BagOfVisualWords", "VLAD", "FisherVector", "PatchKMeans"}

DTYPES = ["u1", "u1", "u1", "f4", "f4", "f8", "f2", "u2", "i8", "i1", "?", ">f4", ">u2", "c8", "O", "U3"]
CONTENTS = ["noise", "flat", "black", "ramp", "edge", "wild"]
LAYOUTS = ["contiguous", "fortran", "backwards", "strided", "read-only", "unaligned"]


class Batch(NamedTuple):
    """How to make a batch, rather than its numbers: so that a failure can be read."""

    n: int
    height: int
    width: int
    channels: tuple
    dtype: str
    content: str
    seed: int
    layout: str
    form: str

    def images(self):
        """Return the images as an array."""
        X = filled(self.content, (self.n, self.height, self.width, *self.channels), np.random.default_rng(self.seed))
        dtype = np.dtype(self.dtype)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numbers that the type cannot hold
            return laid_out(X.astype(dtype) if dtype.kind in "fcOU" else (X * 255).astype(dtype), self.layout)

    def input(self):
        """Return the images as they are, as a list, or as flat rows, with the `image_shape` that these need."""
        X = self.images()
        if self.form == "list":
            return [image[k % 3 :] for k, image in enumerate(X)], None
        return (X.reshape(len(X), -1), X.shape[1:]) if self.form == "rows" and X.size else (X, None)


SIDE = st.sampled_from([*range(1, 41), 0])
BATCHES = st.builds(
    Batch,
    n=st.integers(0, 4),
    height=SIDE,
    width=SIDE,
    channels=st.sampled_from([(), (3,), (), (3,), (1,), (2,), (4,), (3, 1)]),
    dtype=st.sampled_from(DTYPES),
    content=st.sampled_from(CONTENTS),
    seed=st.integers(0, 2**32 - 1),
    layout=st.sampled_from(LAYOUTS),
    form=st.sampled_from(["batch", "batch", "batch", "list", "rows"]),
)


def filled(content, shape, rng):
    """Return numbers that are in [0, 1], unless they are wild."""
    if content in ("flat", "black"):
        return np.full(shape, rng.random() if content == "flat" else 0)
    if content in ("ramp", "edge"):
        across = np.linspace(0, 1, max(shape[2], 1))[: shape[2]].reshape(1, 1, -1, *[1] * (len(shape) - 3))
        return np.broadcast_to(across if content == "ramp" else across > 0.5, shape).astype(float)
    X = rng.random(shape)
    if content == "wild" and X.size:
        X.flat[rng.integers(0, X.size, 3)] = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1.0, 300.0, 1e-40], 3)
    return X


def laid_out(X, layout):
    """Return the same numbers, elsewhere in memory."""
    if layout == "fortran":
        return np.asfortranarray(X)
    if layout == "backwards":
        return X[:, ::-1].copy()[:, ::-1]
    if layout == "strided":
        return np.repeat(X, 2, axis=2)[:, :, ::2]
    if layout == "unaligned" and X.dtype.kind not in "OU":
        memory = np.empty(X.nbytes + 1, np.uint8)
        shifted = np.frombuffer(memory.data, X.dtype, X.size, offset=1).reshape(X.shape)
        shifted[...] = X
        return shifted
    copy = X.copy()
    copy.flags.writeable = layout != "read-only"
    return copy


@st.composite
def parameters(draw, name):
    """Draw values for some of a transformer's parameters; one in thirty is wrong."""
    chosen = draw(st.sets(st.sampled_from(sorted(PARAMETERS[name]))))
    return {key: draw(WRONG if draw(st.integers(0, 29)) == 29 else PARAMETERS[name][key]) for key in sorted(chosen)}


def outcome(function, *arguments):
    """Return what a function returns, or the error it raises if that is one of those that are documented."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return function(*arguments)
        except (TypeError, ValueError) as error:
            return error


def assert_sound(result, n):
    """Assert that these are n rows of finite numbers, or an error that says what is wrong."""
    if isinstance(result, Exception):
        assert len(str(result)) > 20
    else:
        assert len(result) == n
        for part in result:
            assert np.isfinite(np.asarray(part, np.float64)).all()


def assert_alike(a, b, **tolerance):
    """Assert that two outcomes are equal, or that both are errors."""
    assert isinstance(a, Exception) == isinstance(b, Exception), (a, b)
    if not isinstance(a, Exception):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(np.asarray(x), np.asarray(y), **tolerance)


def made(name, chosen, image_shape):
    transformer = TRANSFORMERS[name](**QUICK.get(name, {}) | chosen)
    seeded = {"random_state": 0} if hasattr(transformer, "random_state") else {}
    return clone(transformer).set_params(image_shape=image_shape, **seeded)


def plain(X):
    """Return the same images, contiguous and in the byte order of this machine."""
    if isinstance(X, list):
        return [plain(image) for image in X]
    return np.ascontiguousarray(X.astype(X.dtype.newbyteorder("=")))


@pytest.mark.parametrize("name", TRANSFORMERS)
@given(data=st.data())
def test_features_or_a_refusal(name, data):
    X, image_shape = data.draw(BATCHES).input()
    transformer = made(name, data.draw(parameters(name)), image_shape)
    others = data.draw(BATCHES).input()[0]
    results = []
    for kernels in _native.bodies().values():
        with mock.patch.object(_native, "kernels", kernels):
            results.append(outcome(transformer.fit_transform, X, np.arange(len(X)) % 2))
            assert_sound(results[-1], len(X))
            assert_alike(results[-1], outcome(transformer.fit_transform, plain(X), np.arange(len(X)) % 2), rtol=0)
            if not isinstance(results[-1], Exception):
                assert_sound(outcome(transformer.transform, others), len(others))
    for result in results[1:]:
        if name in LEARNED:  # rounding may tip what a point is nearest to, and so the whole vocabulary
            assert isinstance(result, Exception) == isinstance(results[0], Exception)
        else:
            assert_alike(result, results[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [KMeans, RBFNystroem])
@given(data=st.data())
def test_numbers_from_rows_or_a_refusal(kind, data):
    X, others = (as_rows(data.draw(BATCHES).images()) for _ in range(2))
    transformer = kind(**data.draw(parameters(kind.__name__)), random_state=0)
    result = outcome(transformer.fit_transform, X)
    assert_sound(result, len(X))
    if not isinstance(result, Exception):
        assert_sound(outcome(transformer.transform, others), len(others))


def as_rows(images):
    return images.reshape(len(images), np.prod(images.shape[1:], dtype=int))


def test_every_transformer_and_parameter_is_drawn():
    own = {name: set(made(name, {}, None).get_params(deep=False)) for name in TRANSFORMERS}
    own |= {kind.__name__: set(kind().get_params()) for kind in (KMeans, RBFNystroem)}
    assert {name: set(drawn) | OTHERS & own[name] for name, drawn in PARAMETERS.items()} == own
    assert OF_ROWS - set(PARAMETERS) == {"ToDevice", "ToHost"}  # which test_arrays.py tests; ReadImages: its own file
