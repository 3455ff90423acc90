"""Copies among images, exact and nearly so, and what leaks by them from the training images into the test."""

import hashlib
import numbers
from dataclasses import dataclass

import numpy as np

from .._images import as_bytes, read_any_sizes, take
from ._alignment import candidates, lookalikes, similarities, thumbnails

_STANDS_OUT = 0.25  # a copy's distance, relative to the nearest of the pictures that merely look alike
_PARTNERS = 20  # with which an image is listed where many have the same pixels


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Pairs of images that are copies of each other, the most similar first.

    Attributes
    ----------
    pairs : ndarray of shape (n_pairs, 2), int64
        Two indices into the images, the smaller first; or, where two sets were compared, an index into the images and
        one into the others.
    similarity : ndarray of shape (n_pairs,), float32
        1 for exact copies, and at least the threshold for others.
    exact : ndarray of shape (n_pairs,), bool
        Whether the images have the same size and the same pixels, at 8 bits.
    n_images : int
        Number of images.
    n_others : int or None
        Number of other images; None where copies were sought within one set.
    """

    pairs: np.ndarray
    similarity: np.ndarray
    exact: np.ndarray
    n_images: int
    n_others: int | None = None

    def __len__(self):
        return len(self.pairs)

    @property
    def table(self):
        """The pairs as a :class:`pandas.DataFrame` with the columns index, other, similarity and exact."""
        import pandas as pd

        index, other = self.pairs.T
        return pd.DataFrame({"index": index, "other": other, "similarity": self.similarity, "exact": self.exact})

    def where(self, chosen):
        """Return some of the pairs.

        Parameters
        ----------
        chosen : ndarray of shape (n_pairs,), bool
            Which.

        Returns
        -------
        duplicates : Duplicates
        """
        chosen = np.asarray(chosen, bool)
        parts = (x[chosen] for x in (self.pairs, self.similarity, self.exact))
        return Duplicates(*parts, self.n_images, self.n_others)

    def conflicts(self, labels, other_labels=None):
        """Return the pairs whose labels disagree.

        Parameters
        ----------
        labels : array of shape (n_images,) or (n_images, n_labels)
            Labels of the images; of an indicator matrix any difference counts.
        other_labels : array of shape (n_others,) or (n_others, n_labels), default=None
            Labels of the others, where two sets were compared.

        Returns
        -------
        duplicates : Duplicates

        Raises
        ------
        ValueError
            If there isn't one label for each image.
        """
        labels = _checked_labels(labels, self.n_images, "labels")
        others = labels if self.n_others is None else _checked_labels(other_labels, self.n_others, "other_labels")
        differ = labels[self.pairs[:, 0]] != others[self.pairs[:, 1]]
        return self.where(differ.any(axis=1) if differ.ndim == 2 else differ)


def _checked_labels(labels, n, name):
    if labels is None or np.ndim(labels) not in (1, 2) or len(labels) != n:
        came = "None" if labels is None else f"an array of shape {np.shape(labels)}"
        raise ValueError(f"{name} is {came}; expected one label for each of the {n} images.")
    return np.asarray(labels)


def find_duplicates(images, other=None, *, threshold=0.9, n_jobs=None):
    """Find copies within a set of images, or between two sets.

    Exact copies are all found. Others are found if they were compressed, cut by up to a tenth at each side and scaled
    back, shifted a little, or changed in brightness or in contrast (up to twofold). Mirrored and rotated copies are
    not.

    An image is compared with the few that look most like it when blurred (a thumbnail of 8 x 8 pixels). Of these pairs,
    thumbnails of 32 x 32 pixels are aligned (inverse compositional alignment [1]_ of shift and scale, by rows and by
    columns) and their brightness and contrast matched. Their similarity is the smaller of two correlations: of all
    channels, and of the luma's details. To be copies they must also be four times nearer to each other (by one minus
    the similarity) than either is to pictures that merely look like it. Else, where pictures are much alike, as
    shirts of 28 x 28 pixels are, many would be taken for copies.

    Parameters
    ----------
    images : array of shape (n, height, width) or (n, height, width, 3), or list of images
        uint8, or float in [0, 1], which is rounded to 8 bits; a list may hold different sizes, which are stretched to
        one.
    other : array or list of images, default=None
        Find copies of `images` here, rather than within `images`. As many channels as these.
    threshold : float in (0, 1], default=0.9
        Similarity from which images are copies. 1 finds exact copies only, which is faster.
    n_jobs : int, default=None
        Number of threads. The result doesn't depend on it.

    Returns
    -------
    duplicates : Duplicates
        Where there are more than 20 copies of one image, each is listed with 20 of them. Of an image's near-copies at
        least 4 are examined.

    Raises
    ------
    ValueError
        If `threshold` is not in (0, 1], one set is gray and the other RGB, or the images hold NaN or floats outside
        [0, 1].

    Notes
    -----
    What thumbnails don't show is not seen. Of pictures of 8 x 8 pixels, and of pictures that show little but a straight
    edge or a regular pattern (a brick wall), two may be as alike as a picture and its copy: look at the pairs, with
    :class:`classic_cls.DuplicatesDisplay`. Flat pictures, without details, are never near-copies. In sets of fewer than
    48 images there are too few to compare with that merely look alike, and the similarity alone decides.

    References
    ----------
    .. [1] S. Baker and I. Matthews, "Lucas-Kanade 20 years on: a unifying framework", IJCV 56, 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import load_textures
    >>> from classic_cls.benchmark import find_duplicates
    >>> images = load_textures().images[500:600]
    >>> brighter = np.minimum(images[7].astype(int) + 20, 255).astype(np.uint8)
    >>> found = find_duplicates(np.concatenate([images, images[3:4], brighter[None]]))
    >>> found.pairs.tolist(), found.exact.tolist()
    ([[3, 100], [7, 101]], [True, False])
    """
    if not isinstance(threshold, numbers.Real) or not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold!r}; expected a number above 0, and at most 1.")
    sets = [read_any_sizes(X) for X in ((images,) if other is None else (images, other))]
    if len({batch[0].shape[2] for batch in sets}) > 1:
        raise ValueError(
            "Gray images are compared with RGB images; convert them to one kind, e.g. np.stack([X] * 3, -1)."
        )
    contents = _contents(sets)
    found = [_exact_copies(contents)]
    if threshold < 1:
        found.append(_near_copies(sets, contents, threshold, n_jobs))
    return _listed(contents, *(np.concatenate(column) for column in zip(*found, strict=True)))


def _contents(sets):
    """Return for each set an array that tells for each image, by a number, what pixels it has."""
    digests = [_digest(image) for batch in sets for image in batch]
    numbered = np.unique(digests, return_inverse=True)[1]
    return np.split(numbered, [len(sets[0])])[: len(sets)]


def _digest(image):
    pixels = as_bytes(image)
    return hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=str(pixels.shape[0]).encode()).hexdigest()


def _exact_copies(contents):
    """Return pairs of contents that are one and the same, and the similarity 1."""
    values, counts = np.unique(contents[0], return_counts=True)
    shared = values[counts > 1] if len(contents) == 1 else np.intersect1d(*contents)
    return np.column_stack([shared, shared]), np.ones(len(shared), np.float32)


def _near_copies(sets, contents, threshold, n_jobs):
    """Return pairs of different contents that are nearly the same, and how similar they are."""
    firsts = [np.unique(content, return_index=True)[1] for content in contents]
    thumbs = [thumbnails([batch[i] for i in first], n_jobs) for batch, first in zip(sets, firsts, strict=True)]
    sides = thumbs[0], thumbs[-1]
    pairs = candidates(*thumbs, n_jobs=n_jobs)
    values = [content[first] for content, first in zip(contents, firsts, strict=True)]
    pairs = pairs[values[0][pairs[:, 0]] != values[-1][pairs[:, 1]]]
    similarity = similarities(*sides, pairs, n_jobs=n_jobs)
    pairs, similarity = pairs[similarity >= threshold], similarity[similarity >= threshold]
    limits = [_nearest_lookalike(*sides[::step], pairs[:, k], n_jobs) for k, step in ((0, 1), (1, -1))]
    copies = 1 - similarity <= _STANDS_OUT * np.minimum(*limits)
    pairs = pairs[copies]
    return np.column_stack([values[0][pairs[:, 0]], values[-1][pairs[:, 1]]]), similarity[copies]


def _nearest_lookalike(thumbs, others, index, n_jobs):
    """Return for the thumbnails at `index` how far the nearest is that looks like it and is no copy."""
    index, inverse = np.unique(index, return_inverse=True)
    if not len(index):
        return np.empty(0)
    found = lookalikes(thumbs[index], others, n_jobs=n_jobs)
    pairs = np.column_stack([np.repeat(index, found.shape[1]), found.ravel()])
    similarity = similarities(thumbs, others, pairs, n_jobs=n_jobs).reshape(found.shape)
    return (1 - similarity).min(axis=1, initial=1)[inverse] if found.size else np.full(len(inverse), np.inf)


def _listed(contents, pairs, similarity):
    """Return the images that have these pairs of contents."""
    left, right = (_members(content) for content in (contents[0], contents[-1]))
    found = [_each_with_each(left[a], right[b]) for a, b in pairs.tolist()]
    similarity = np.repeat(similarity, [len(part) for part in found])
    exact = np.repeat(pairs[:, 0] == pairs[:, 1], [len(part) for part in found])
    images = np.concatenate([np.empty((0, 2), np.int64), *found])
    n_images, n_others = len(contents[0]), len(contents[1]) if len(contents) == 2 else None
    if n_others is None:
        images = np.sort(images, axis=1)
        images, first = np.unique(images, axis=0, return_index=True)
        similarity, exact = similarity[first], exact[first]
        apart = images[:, 0] != images[:, 1]
        images, similarity, exact = images[apart], similarity[apart], exact[apart]
    order = np.lexsort((images[:, 1], images[:, 0], -similarity, ~exact))
    return Duplicates(images[order], similarity[order], exact[order], n_images, n_others)


def _members(content):
    """Return {content: indices of the images that have it}."""
    order = np.argsort(content, kind="stable")
    values, starts = np.unique(content[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


def _each_with_each(a, b):
    """Return the pairs of a member of `a` and one of `b`; of many members, each with some."""
    first = np.arange(max(len(a), len(b)))[:, None]
    second = first + np.arange(min(len(b), _PARTNERS))
    pairs = np.stack(np.broadcast_arrays(a[first % len(a)], b[second % len(b)]), axis=-1).reshape(-1, 2)
    return np.unique(pairs, axis=0)


@dataclass(frozen=True, eq=False)
class Leaks:
    """Copies in a data set, by the sides of its split; all indices are into ``dataset.images``.

    Attributes
    ----------
    between : Duplicates
        Pairs of a training and a test image. An index that is both in ``train`` and in ``test`` is its own copy.
    within_train, within_test : Duplicates
        Pairs of training images, and pairs of test images.
    conflicts : Duplicates
        Those of all these pairs whose labels disagree.
    n_train, n_test : int
        Number of training and of test images.
    """

    between: Duplicates
    within_train: Duplicates
    within_test: Duplicates
    conflicts: Duplicates
    n_train: int
    n_test: int

    @property
    def leaked(self):
        """The test images that have a copy among the training images: their indices, each once, sorted."""
        return np.unique(self.between.pairs[:, 1])

    def summary(self):
        """Say in a paragraph of plain text what was found.

        Returns
        -------
        text : str
        """
        n = len(self.leaked)
        n_exact = len(np.unique(self.between.pairs[self.between.exact, 1]))
        verdict = "A score on these says nothing about new images." if n else "Nothing leaks that could be found."
        return (
            f"{n} of {self.n_test} test images ({n / max(1, self.n_test):.2%}) have a copy among the {self.n_train} "
            f"training images; of {n_exact} the copy is exact. {verdict} Within the training images there are "
            f"{_count(self.within_train)}, within the test images {_count(self.within_test)}. In {len(self.conflicts)} "
            "of all these pairs the labels disagree."
        )


def _count(duplicates):
    pairs = "pair" if len(duplicates) == 1 else "pairs"
    return f"{len(duplicates)} {pairs} of copies ({duplicates.exact.sum()} exact)"


def find_leaks(dataset, *, threshold=0.9, n_jobs=None):
    """Find copies between a data set's training and test images, and within either.

    Parameters
    ----------
    dataset : Bunch
        What :func:`classic_cls.load_dataset` returns.
    threshold, n_jobs
        As in :func:`find_duplicates`.

    Returns
    -------
    leaks : Leaks
        ``leaks.summary()`` says it in words.

    Raises
    ------
    ValueError
        If `threshold` is not in (0, 1].

    Examples
    --------
    >>> from classic_cls import load_faces
    >>> from classic_cls.benchmark import find_leaks
    >>> faces = load_faces()
    >>> faces.images[faces.test[3]] = faces.images[faces.train[5]]
    >>> leaks = find_leaks(faces, threshold=1)
    >>> leaks.leaked == faces.test[3]
    array([ True])
    >>> print(leaks.summary())
    1 of 50 test images (2.00%) have a copy among the 150 training images; of 1 the copy is exact. ...
    """
    index = np.concatenate([dataset.train, dataset.test]).astype(np.int64)
    found = find_duplicates(take(dataset.images, index), threshold=threshold, n_jobs=n_jobs)
    in_test = found.pairs >= len(dataset.train)
    conflicting = found.conflicts(np.asarray(dataset.target)[index])
    parts = [found.where(in_test.sum(axis=1) == n) for n in (1, 0, 2)]
    named = [Duplicates(index[d.pairs], d.similarity, d.exact, len(dataset.images)) for d in (*parts, conflicting)]
    return Leaks(*named, len(dataset.train), len(dataset.test))
