"""The networks of `deep.py`, as torch modules: they standardise their input and, in training, vary it."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import relu

_SIDE = 32  # pixels of the shorter side; larger images are made smaller by the first layer
_WIDTHS = (32, 64, 128, 256)


class Net(nn.Module):
    """Pixels to logits.

    Parameters
    ----------
    layers : nn.Module
        From standardised pixels (n, channels, height, width) to logits (n, n_classes).
    mean, std : ndarray of shape (channels,)
        Of the training pixels, in [0, 1].
    shift : float
        The fraction of a side by which images are moved at most in training; 0 for not.
    flips : bool
        Whether mirror images are trained on, and averaged over in prediction.
    """

    def __init__(self, layers, mean, std, shift, flips):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32)[:, None, None])
        self.layers = layers.to(memory_format=torch.channels_last)  # up to twice as fast on a CPU
        self.shift, self.flips = shift, flips

    def forward(self, images):
        """Return logits of images (n, channels, height, width), uint8 or float32 in [0, 1]."""
        if self.training:
            return self._logits(varied(images, self.shift, self.flips))
        if not self.flips:
            return self._logits(images)
        return (self._logits(images) + self._logits(images.flip(3))) / 2

    def _logits(self, images):
        pixels = images / 255 if images.dtype == torch.uint8 else images
        return self.layers(((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last))


def varied(images, shift, flips):
    """Return each image moved by up to `shift` of its sides, filled up by reflection, and perhaps its mirror image."""
    rows, columns = (_moved(len(images), side, shift) for side in images.shape[2:])
    if flips:
        columns = torch.where(torch.rand(len(images), 1) < 0.5, columns.flip(1), columns)
    each = torch.arange(len(images))[:, None, None]
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _moved(n, side, shift):
    """Return the rows (or columns), (n, side), that stand in place of 0, 1, ... in each of n moved images."""
    furthest = round(shift * side)
    moved = torch.arange(side) + torch.randint(-furthest, furthest + 1, (n, 1))
    return (side - 1) - ((side - 1) - moved.abs()).abs()


def resnet(n_channels, n_classes, height, width, dropout):
    """Return a ResNet of three residual blocks (8 weighted layers), after He et al., CVPR 2016."""
    layers = [_stem(n_channels, height, width), nn.ReLU()]
    layers += [_Residual(*widths) for widths in pairwise(_WIDTHS)]
    return nn.Sequential(*layers, *_head(n_classes, dropout))


def cnn(n_channels, n_classes, height, width, dropout):
    """Return a plain network of four convolutions, three of them followed by max pooling."""
    layers = [_stem(n_channels, height, width)]
    for widths in pairwise(_WIDTHS):
        layers += [nn.ReLU(), nn.MaxPool2d(2), _convolution(*widths)]
    return nn.Sequential(*layers, nn.ReLU(), *_head(n_classes, dropout))


ARCHITECTURES = {"cnn": cnn, "resnet": resnet}


def _stem(n_channels, height, width):
    step = max(1, min(height, width) // _SIDE)
    convolution = nn.Conv2d(n_channels, _WIDTHS[0], 2 * step + 1, step, step, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(_WIDTHS[0]))


def _head(n_classes, dropout):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(_WIDTHS[-1], n_classes)


def _convolution(n_in, n_out, size=3, stride=1):
    convolution = nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out))


class _Residual(nn.Module):
    """Two convolutions at half the resolution, and a shortcut past them."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.first, self.second = _convolution(n_in, n_out, stride=2), _convolution(n_out, n_out)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), _convolution(n_in, n_out, size=1))

    def forward(self, x):
        return relu(self.second(relu(self.first(x))) + self.shortcut(x))
