"""How the GPU's HOG kernel cuts images into tiles that fit into the shared memory of a thread block."""

import math

from .._arrays import threads_for

_ROOM = 12 << 10  # bytes for a tile's pixels, and for its cells: so that many tiles are at work at once
_VOTES = 16 << 10  # and for its threads' votes
_MOST = 1 << 20  # up to here the kernel's quotients are exact


class Tiles:
    """Tiles of images of `shape` (height, width, channels) at multiples of `alignment` bytes; hog.cu has the words."""

    def __init__(self, shape, itemsize, alignment, orientations, cell, block):
        self.height, self.width, channels = shape
        self.pixel, self.orientations, self.cell, self.block = channels * itemsize, orientations, cell, block
        self.down, self.across = (k // size - n + 1 for k, size, n in zip(shape, cell, block, strict=False))
        self.rows, self.cols = self.down, self.across
        self.run = 4 if cell[1] % 4 == 0 else 1
        self.margin = 4 * self.run
        self._shrink()
        self.band_rows = self.rows + block[0] - 1
        while self.band_rows > 1 and self._room(self.band_rows) > _ROOM:
            self.band_rows = -(-self.band_rows // 2)
        self.room = self._room(self.band_rows)
        self.staged = self.room <= _ROOM
        if not self.staged:  # cells so wide are read where they are
            self.run, self.room = 1, 0
            self.band_rows = max(1, min(self.rows + block[0] - 1, _MOST // self._runs(1)))
        self.piece = self._piece(alignment)

    def _shrink(self):
        """Take fewer rows and columns of blocks until their cells and a row of cells' pixels fit."""
        while self.rows * self.cols > 1 and self._cell_bytes() > _ROOM:
            self.rows, self.cols = self._halved()
        while self.cols > 1 and self._room(1) > _ROOM:
            self.cols = -(-self.cols // 2)

    def _halved(self):
        taller = self.rows * self.cell[0] >= self.cols * self.cell[1]
        if self.cols == 1 or (self.rows > 1 and taller):
            return -(-self.rows // 2), self.cols
        return self.rows, -(-self.cols // 2)

    def _cells(self):
        return self.rows + self.block[0] - 1, self.cols + self.block[1] - 1

    def _cell_bytes(self):
        return 4 * math.prod(self._cells()) * (self.orientations + 1) + 8 * self.rows * self.cols

    @property
    def pitch(self):
        """Pixels of a row in shared memory."""
        return -(-min(self.width, self._cells()[1] * self.cell[1] + 2 * self.margin) // 4) * 4

    def _room(self, band_rows):
        return -(-(band_rows * self.cell[0] + 2) * self.pitch * self.pixel // 16) * 16

    def _runs(self, band_rows):
        return band_rows * self._cells()[1] * (self.cell[1] // self.run)

    def _piece(self, alignment):
        """Return the largest piece of which the rows of all tiles have a whole number."""
        lefts = [max(col * self.cell[1] - self.margin, 0) for col in range(0, self.across, self.cols)]
        ends = [
            min((col + cols + self.block[1] - 1) * self.cell[1] + self.margin, self.width)
            for col in range(0, self.across, self.cols)
            for cols in [min(self.cols, self.across - col)]
        ]
        common = math.gcd(alignment, self.pixel * math.gcd(self.width, self.pitch, *lefts, *ends))
        return next(piece for piece in (16, 4, 1) if common % piece == 0)

    @property
    def in_workspace(self):
        """Numbers of the workspace that a tile needs: 0 where the cells fit into shared memory."""
        return 0 if self._cell_bytes() <= _ROOM else math.prod(self._cells()) * (self.orientations + 1)

    @property
    def grid(self):
        """Rows and columns of tiles in an image."""
        return -(-self.down // self.rows), -(-self.across // self.cols)

    @property
    def per_image(self):
        """Tiles of an image."""
        return math.prod(self.grid)

    def numbers(self):
        """Return what the kernel has to know, in its order."""
        image = self.height, self.width, *self.cell, *self.block, self.down, self.across
        return *image, *self.grid, self.rows, self.cols, self.band_rows, self.margin, self.pitch, self.room, self.piece

    def launch(self):
        """Return the threads of a block, and the bytes of shared memory."""
        bins = self.orientations
        threads = min(threads_for(self._runs(self.band_rows)), _VOTES // (4 * bins))
        cells = 8 * self.rows * self.cols if self.in_workspace else self._cell_bytes()
        return {"threads": threads, "shared": self.room + 4 * (bins + 1 + bins * threads) + cells}
