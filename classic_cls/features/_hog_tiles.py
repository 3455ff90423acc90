"""How the GPU's HOG kernel cuts images into tiles that fit into the shared memory of a thread block."""

import math
from collections import Counter
from functools import cached_property, lru_cache

from .._arrays import SHARED_MEMORY, WARP, threads_for

_ROOM = 12 << 10  # bytes for a tile's pixels, and for its cells: so that many tiles are at work at once
_VOTES = 16 << 10  # and for its threads' votes
_MOST = 1 << 20  # up to here the kernel's quotients are exact


class Tiles:
    """Tiles of images of `shape` (height, width, channels) at multiples of `alignment` bytes; hog.cu has the words."""

    def __init__(self, shape, itemsize, alignment, orientations, cell, block):
        self.height, self.width, self.channels = shape
        self.pixel, self.orientations, self.cell, self.block = self.channels * itemsize, orientations, cell, block
        self.bins = orientations + 1  # one of them is in two parts
        self.most_threads = max(WARP, _VOTES // (4 * self.bins) // WARP * WARP)
        self.most = min(_ROOM, (SHARED_MEMORY - 4 * self.bins * self.most_threads) // 2)
        self.down, self.across = (k // size - n + 1 for k, size, n in zip(shape, cell, block, strict=False))
        self.rows, self.cols, self.padding, self.together = self.down, self.across, 0, 1
        self.run = next(run for run in ((8, 4, 1) if self.channels == 1 else (4, 1)) if cell[1] % run == 0)
        self.margin = 16 if self.run > 1 else 4
        self._shrink()
        self.band_rows = self.rows + block[0] - 1
        while self.band_rows > 1 and self._room(self.band_rows) > self.most:
            self.band_rows = -(-self.band_rows // 2)
        self.room = self._room(self.band_rows)
        self.staged = self.room <= self.most
        if self.staged:
            self._stagger()
        else:  # cells so wide are read where they are
            self.run, self.room = 1, 0
            self.band_rows = max(1, min(self.rows + block[0] - 1, _MOST // self._runs(1)))
        self.piece = self._piece(alignment)

    def _shrink(self):
        """Take fewer rows and columns of blocks until their cells and a row of cells' pixels fit."""
        while self.rows * self.cols > 1 and self._cell_bytes() > self.most:
            self.rows, self.cols = self._halved()
        while self.cols > 1 and self._room(1) > self.most:
            self.cols = -(-self.cols // 2)

    def _halved(self):
        taller = self.rows * self.cell[0] >= self.cols * self.cell[1]
        if self.cols == 1 or (self.rows > 1 and taller):
            return -(-self.rows // 2), self.cols
        return self.rows, -(-self.cols // 2)

    def _cells(self):
        return self.rows + self.block[0] - 1, self.cols + self.block[1] - 1

    def _cell_bytes(self):
        return 4 * math.prod(self._cells()) * (self.orientations + 1)

    @property
    def pitch(self):
        """Pixels of a row in shared memory."""
        return self._row() + self.padding

    def _row(self):
        return -(-min(self.width, self._cells()[1] * self.cell[1] + 2 * self.margin) // 4) * 4

    def _room(self, band_rows, padding=0):
        rows = self.height if self.together > 1 else min(band_rows * self.cell[0] + 2, self.height)
        return rows * (self._row() + padding) * self.pixel

    def _runs(self, band_rows):
        return band_rows * self._cells()[1] * (self.cell[1] // self.run)

    def _stagger(self):
        """Take so many images together that warps are full, and rows so long that lanes use different banks."""
        if self.per_image == 1 and self.band_rows == self._cells()[0]:
            runs = self._runs(self.band_rows)
            most = min(self.most // self.room, self.most // self._cell_bytes(), min(128, self.most_threads) // runs)
            candidates = range(1, max(1, min(16, most)) + 1)
            self.together = max(candidates, key=lambda n: self._use(n, runs))
        turns = {}
        for padding in range(0, 32, 4):
            self.padding, self.room = padding, self._room(self.band_rows, padding)
            if padding == 0 or self.room * self.together <= self.most:
                turns[padding] = self._turns()
        self.padding = min(turns, key=turns.get)
        self.room = self._room(self.band_rows, self.padding)

    def _use(self, together, runs):
        """Return what share of warps' lanes have something to do, and how few instructions their blocks need."""
        instructions = min(self._instructions(lanes, together) for lanes in (1, 2, 4, 8, 16, 32))
        return together * runs / threads_for(together * runs, 1024), -instructions / together

    def _turns(self):
        """Return how many turns the lanes of a warp need to read of their rows, as some lie in the same bank."""
        width, all_runs = 4 if self.pixel <= 3 else 16, self._runs(self.band_rows)
        per_row, cell = self._cells()[1] * self.cell[1] // self.run, self.cell[0] * self.pitch * self.pixel
        places = []
        for i in range(min(WARP, self.together * all_runs)):
            which, run = divmod(i, all_runs)
            places.append(which * self.room + run // per_row * cell + run % per_row * self.run * self.pixel)
        at_once = 128 // width
        parts = [places[k : k + at_once] for k in range(0, len(places), at_once)]
        return sum(max(Counter(place // width % at_once for place in part).values()) for part in parts)

    def _piece(self, alignment):
        """Return the largest piece of which the rows of all tiles have a whole number."""
        lefts = [max(col * self.cell[1] - self.margin, 0) for col in range(0, self.across, self.cols)]
        ends = [
            min((col + cols + self.block[1] - 1) * self.cell[1] + self.margin, self.width)
            for col in range(0, self.across, self.cols)
            for cols in [min(self.cols, self.across - col)]
        ]
        common = math.gcd(alignment, self.pixel * math.gcd(self.width, *lefts, *ends))
        return next(piece for piece in (16, 4, 1) if common % piece == 0)

    @property
    def in_workspace(self):
        """Numbers of the workspace that a tile needs: 0 where the cells fit into shared memory."""
        return 0 if self._cell_bytes() <= self.most else math.prod(self._cells()) * (self.orientations + 1)

    @property
    def looked_at(self):
        """Rows and columns of an image among whose float32 the kernel looks for NaN."""
        if not self.staged:
            return 0, 0
        down, across = (n + k - 1 for n, k in zip((self.down, self.across), self.block, strict=True))  # cells
        rows = self.height if self.together > 1 else min(down * self.cell[0] + 1, self.height)
        return rows, min(across * self.cell[1] + self.margin, self.width)

    @property
    def grid(self):
        """Rows and columns of tiles in an image."""
        return -(-self.down // self.rows), -(-self.across // self.cols)

    @property
    def per_image(self):
        """Tiles of an image."""
        return math.prod(self.grid)

    @cached_property
    def sizes(self):
        """Return what the kernel is compiled for, besides what there is to compile."""
        part = 16 if self.piece == 16 and self.pitch * self.pixel % 16 == 0 else min(4, self.piece)
        threads = self.launch()["threads"]
        sizes = {"THREADS": threads, "BLOCKS": (768 if self.channels == 1 else 512) // threads}
        sizes |= {"HEIGHT": self.height, "WIDTH": self.width}
        sizes |= {"DOWN": self.down, "ACROSS": self.across}
        sizes |= dict(zip(("TILES_DOWN", "TILES_ACROSS"), self.grid, strict=True))
        sizes |= {"TILE_ROWS": self.rows, "TILE_COLS": self.cols, "TOGETHER": self.together}
        sizes |= {"BAND_ROWS": self.band_rows, "MARGIN": self.margin, "PITCH": self.pitch, "ROOM": self.room}
        sizes |= {"PIECE": self.piece, "PART": part, "IN_WORKSPACE": self.in_workspace}
        return tuple(sizes.items())

    @cached_property
    def lanes(self):
        """Lanes of a warp that share a block."""
        return min((1, 2, 4, 8, 16, 32), key=lambda lanes: self._instructions(lanes, self.together))

    def _instructions(self, lanes, together):
        """Return about how many instructions a warp, or several, needs for the blocks of so many tiles."""
        size, blocks = math.prod(self.block) * self.orientations, together * self.rows * self.cols
        wide = math.gcd(size, 4)
        pieces, turns = -(-size // (wide * lanes)), -(-blocks * lanes // WARP)
        return turns * (25 + pieces * (4 * wide + min(WARP // lanes, blocks)) + 6 * math.log2(lanes))

    def launch(self):
        """Return the threads of a block, and the bytes of shared memory."""
        bins, runs = self.bins, self.together * self._runs(self.band_rows)
        threads = min(threads_for(runs), self.most_threads)
        cells = 0 if self.in_workspace else self._cell_bytes()
        return {"threads": threads, "shared": self.together * (self.room + cells) + 4 * bins * threads}


tiles_for = lru_cache(Tiles)
