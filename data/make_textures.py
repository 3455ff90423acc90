"""Write the sample folder: patches of scikit-image's photographs of brick, grass and gravel.

    python data/make_textures.py

The patches do not overlap. Those for training come from the upper 336 rows of each photograph and those for
testing from the rows below, so that no pixel is in both.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

SIZE = 48
PARTS = {"train": (range(7), 12), "test": (range(7, 10), 6)}  # rows of patches to choose from, and how many


def make(folder):
    """Write ``train|test/brick|grass|gravel/*.png`` into `folder`."""
    for part, (rows, count) in PARTS.items():
        corners = [(row * SIZE, col * SIZE) for row in rows for col in range(512 // SIZE)]
        chosen = np.linspace(0, len(corners) - 1, count).round().astype(int)
        for name in ("brick", "grass", "gravel"):
            photograph = getattr(data, name)()
            target = Path(folder, part, name)
            target.mkdir(parents=True, exist_ok=True)
            for number, (top, left) in enumerate(corners[k] for k in chosen):
                patch = photograph[top : top + SIZE, left : left + SIZE]
                Image.fromarray(patch).save(target / f"{number:02}.png", optimize=True)


if __name__ == "__main__":
    make(Path(__file__).parent / "textures" if len(sys.argv) == 1 else sys.argv[1])
