"""Whatever comes in, with whatever parameters: the GPU's features are the CPU's, or an error of the same type.

``python -m pytest tests/test_gpu_fuzz.py --hypothesis-profile=thorough`` draws 2,000 inputs for each transformer.
"""

from typing import NamedTuple

import numpy as np
import pytest
from conftest import crops
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from test_contract import TRANSFORMERS
from test_fuzz import LEARNED, filled, made, outcome, parameters

from classic_cls import KeypointSIFT

FEW = settings(max_examples=settings.default.max_examples // 5)  # many of them compile a kernel
ON_GPU = [name for name in TRANSFORMERS if name != "KeypointSIFT"]
TOLERANCES = {"ColorHistogram": 0, "DenseSIFT": 3e-6, "Resize": 2e-6, "FisherVector": 1e-4, "PatchKMeans": 1e-4}
SIDES = st.sampled_from([*range(1, 13, 3), *range(13, 80, 2), *range(80, 151, 5)])


class Pictures(NamedTuple):
    """How to make pictures, and what they are a part of: so that a failure can be read."""

    n: int
    height: int
    width: int
    channels: tuple
    dtype: str
    content: str
    layout: str
    seed: int

    def images(self):
        """Return the pictures as an array or a list; as floats, they are of 256 levels unless they are wild."""
        with np.errstate(all="ignore"):
            levels = self._levels() if self.content == "wild" else self._levels().astype(np.uint8)
            X = levels.astype(np.uint8) if self.dtype == "u1" else (levels / 255).astype(self.dtype)
        return [image[k:] for k, image in enumerate(X)] if self.layout == "list" else X

    def _levels(self):
        shape, rng = (self.n, self.height, self.width, *self.channels), np.random.default_rng(self.seed)
        if self.content == "photo":
            X = crops(*shape[:3], self.seed)
            return X if self.channels else X[..., 1]
        return rng.integers(99, 103, shape) if self.content == "near" else filled(self.content, shape, rng) * 255


PICTURES = st.builds(
    Pictures,
    n=st.integers(1, 3),
    height=SIDES,
    width=SIDES,
    channels=st.sampled_from([(), (3,)]),
    dtype=st.sampled_from(["u1", "f4", "f8"]),
    content=st.sampled_from(["photo", "photo", "photo", "near", "noise", "edge", "flat", "wild"]),
    layout=st.sampled_from(["whole", "whole", "inside", "inside", "behind", "behind", "strided", "backwards", "list"]),
    seed=st.integers(0, 2**32 - 9),
)


def sent(cupy, X, layout):
    """Return the same pictures on the GPU, as a part of what lies there."""
    if layout == "list":
        return [cupy.asarray(image) for image in X]
    if layout == "inside":
        return cupy.asarray(np.pad(X, [(1, 1), (2, 1), (1, 3), (0, 0)][: X.ndim], constant_values=77))[1:-1, 2:-1, 1:-3]
    if layout == "behind":
        return cupy.asarray(np.concatenate([X[:1], X]))[1:]
    if layout == "strided":
        return cupy.asarray(np.repeat(X, 2, axis=2))[:, :, ::2]
    return cupy.asarray(X[:, ::-1])[:, ::-1] if layout == "backwards" else cupy.asarray(X)


def drawn(data, name):
    """Draw a transformer that runs on a GPU."""
    chosen = data.draw(parameters(name))
    if isinstance(chosen.get("descriptor"), KeypointSIFT):
        del chosen["descriptor"]
    return made(name, chosen, None)


def difference(ours, theirs):
    """Return by how much features differ, of which the largest is 1 or less; errors of one type do not."""
    if isinstance(ours, Exception) or isinstance(theirs, Exception):
        return 0 if type(ours) is type(theirs) or "on a GPU at most" in str(ours) else np.inf
    if isinstance(ours, list):
        return max(difference(*pair) for pair in zip(ours, theirs, strict=True))
    ours = ours.get()
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    return np.abs(ours - theirs).max() / max(1, np.abs(theirs).max())


@pytest.mark.parametrize("name", ON_GPU)
@FEW
@given(data=st.data())
def test_features_or_the_same_refusal(cupy, name, data):
    pictures, transformer = data.draw(PICTURES), drawn(data, name)
    train = pictures._replace(n=4, height=40, width=40, content="photo") if name in LEARNED else pictures
    X, y = train.images(), np.arange(train.n) % 2
    fitted = outcome(clone(transformer).fit, X, y)
    if isinstance(fitted, Exception):
        assert difference(outcome(transformer.fit, sent(cupy, X, train.layout), y), fitted) == 0, fitted
        return
    # Of words that are equally near, or gradients that are no bytes, rounding may choose another; hardly ever thrice.
    found = []
    for k in range(3 if name in LEARNED or pictures.content == "wild" else 1):
        X = pictures._replace(seed=pictures.seed + k).images()
        results = outcome(fitted.transform, sent(cupy, X, pictures.layout)), outcome(fitted.transform, X)
        found.append(difference(*results))
        if found[-1] <= TOLERANCES.get(name, 1e-5):
            return
    pytest.fail(f"differences of {found}: {results}")
