// Histograms of oriented gradients on a GPU: the conventions and the numbers of hog.cpp.
//
// The loader defines Pixel (unsigned char, float or double), CHANNELS (1 or 3), RUN (the columns that a thread takes, 8,
// 4 or 1; a cell has a multiple of them), STAGED (whether pixels are read from shared memory), IN_SHARED (whether cells
// are kept there), LANES (of a warp, that share a block), and what the user chose: ORIENTATIONS, CELL_ROWS, CELL_COLS,
// BLOCK_ROWS, BLOCK_COLS, NORM. And EXACT: which gradients are found in double precision, since rounding may decide.
// HARDLY any: where channels are equally strong. AT_DIAGONALS, too, which are thresholds for 4, 8, 12, ... orientations.
// Or ALWAYS.
//
// A thread block takes a tile: some rows and columns of blocks, with all cells of theirs; or several, if they are whole
// images. It goes down the tile in bands of cells: their pixels are copied to shared memory as they are; a thread takes
// a run of columns in a cell and votes into a histogram of its own; the runs of each cell are summed. In the end the
// tile's blocks are normalised.
//
// The loader defines sizes, too, so that the compiler knows where everything lies. An image of HEIGHT x WIDTH pixels has
// DOWN x ACROSS blocks in TILES_DOWN x TILES_ACROSS tiles of TILE_ROWS x TILE_COLS, fewer at the end. A thread block (of
// THREADS; a processor should have room for BLOCKS) takes TOGETHER tiles. A tile is worked on BAND_ROWS rows of cells at a
// time, whose pixels take ROOM bytes of shared memory where they are STAGED, PITCH pixels a row with MARGIN on either
// side. Rows are fetched in pieces of PIECE bytes, and stored in pieces of PART bytes. Where cells are not IN_SHARED
// memory, a tile has IN_WORKSPACE numbers of the workspace.
#include "_cuda.cuh"

enum Precision { HARDLY, AT_DIAGONALS, ALWAYS };
enum Norm { L1, L1_SQRT, L2, L2_HYS };

constexpr float NEAR = 1e-4f;  // relatively: float32 gradients of k / 255 are good to a third of that
constexpr float WHITE = sizeof(Pixel) == 1 ? 255 : 1;
constexpr int RUNS = CELL_COLS / RUN;  // of a cell
constexpr bool LOOKS = STAGED && sizeof(Pixel) == 4;  // at floats, whether they can be pixels
constexpr float LARGEST = 1e6f;                       // of these

// The pixels that a thread block has at hand: rows from `top` on, columns from `left` on.
struct Band {
  const Pixel* pixels;
  int top, left, rows, cols;

  __device__ static int pitch() { return STAGED ? PITCH : WIDTH; }
  __device__ const Pixel* at(int y, int x) const { return pixels + ((y - top) * pitch() + x - left) * CHANNELS; }
};

// Where bins begin, from -90 to 90 degrees: thresholds 0 to BINS. The last bin is the first one's other part, or, where it
// begins at 90 degrees, all that it has there; then follow the others.
struct Compass {
  static constexpr int BINS = ORIENTATIONS + 1, MIDDLE = BINS / 2;  // the latter begins at 0 degrees
  static constexpr unsigned ZERO = 0x4b000000;                        // the bits of 2^23

  // The number of the threshold nearest to an angle, more by ZERO. The angle's sine comes, over the sum of its and the
  // cosine's size. The line is good to 4.1 degrees, the cubic to 0.36: to 0.4 of a bin up to 16 orientations, and 200.
  static __device__ unsigned nearest(float slope) {
    constexpr float n = ORIENTATIONS;
    const float size = fabsf(slope);
    const float way = ORIENTATIONS <= 16 ? n / 2 : fmaf(size, fmaf(size, n * -0.463676f, n * 0.695513f), n * 0.268162f);
    return __float_as_int(fmaf(slope, way, 8388608 + MIDDLE));  // at 2^23 a float is rounded to a whole number
  }

  // Orientation k is in this bin, and in the last one if that is the first.
  static __device__ int bin(int k) { return (k + MIDDLE) % ORIENTATIONS; }
};

#include "_hog_exact.cuh"

// --- In single precision ----------------------------------------------------------------------------------------------

// Only differences count, and those of 2^23 + x are exact.
__device__ inline float number(unsigned char pixel) { return __int_as_float(0x4b000000 + pixel); }
__device__ inline float number(float pixel) { return pixel; }
__device__ inline float number(double pixel) { return float(pixel); }

struct Numbers {
  float at[RUN * CHANNELS];

  __device__ explicit Numbers(const Pixel* from) { load(from); }

  template <class T>
  __device__ void load(const T* from) {
    struct alignas(RUN > 1 ? 16 : sizeof(T)) Pixels {
      T at[RUN * CHANNELS];
    };
    const Pixels pixels = *(const Pixels*)from;
    for (int i = 0; i < RUN * CHANNELS; ++i) at[i] = number(pixels.at[i]);
  }
  __device__ void load(const unsigned char* from) {
    const unsigned* words = (const unsigned*)from;
    for (int i = 0; i < RUN * CHANNELS; ++i)  // the byte, and behind it three of 0x4b000000
      at[i] = RUN > 1 ? __int_as_float(__byte_perm(words[i / 4], 0x4b000000, 0x7540 + i % 4)) : number(from[i]);
  }
};

// The thresholds' tangents, negative: a lane of a warp keeps one, or, where there are more, they lie in global memory.
// All lanes of a warp ask at once.
struct Tangents {
  static constexpr bool IN_LANES = Compass::BINS < 32;

  const float* all;
  float own = 0;

  __device__ explicit Tangents(const float* all) : all(all) {
    if (IN_LANES) own = all[min(lane(), Compass::BINS)];
  }
  __device__ float operator[](unsigned k) const {
    return IN_LANES ? __shfl_sync(0xffffffffu, own, k) : all[k - Compass::ZERO];
  }
};

// A thread's own. The numbers that a Compass gives are more by ZERO, and the offset here less by what that makes up:
// unsigned numbers wrap around.
struct Histogram {
  char* memory;
  unsigned offset;

  __device__ Histogram(char* memory, float* own)
      : memory(memory), offset(opaque((char*)own - memory - Compass::ZERO * 4 * THREADS)) {}
  __device__ float& operator[](unsigned k) const { return *(float*)(memory + (offset + k * (4 * THREADS))); }
};

struct Vote {
  float x, y, squared;
  bool near = false;  // whether rounding could make it the other channel, or the other bin

  __device__ Vote(float gx, float gy) : x(gx), y(gy), squared(fmaf(gx, gx, gy * gy)) {}

  // Takes the stronger of two.
  __device__ void consider(const Vote& other) {
    const bool stronger = other.squared > squared;
    const bool doubtful = sizeof(Pixel) == 1  // whose squares are exact, and opposite gradients have the same bin
                              ? (other.squared == squared) & (fmaf(x, other.y, -(other.x * y)) != 0)
                              : (fabsf(other.squared - squared) <= NEAR * squared) & ((other.x != x) | (other.y != y));
    near = doubtful | (near & !stronger);
    if (stronger) x = other.x, y = other.y;
    squared = fmaxf(squared, other.squared);
  }

  // Where its bin lies in a histogram. No arctangent: a rough angle leaves two bins, and a tangent decides. With gx made
  // positive, a threshold is reached where gy / gx is at least its tangent.
  __device__ float& bin(const Histogram& histogram, const Tangents& tangents) {
    const float up = __int_as_float(__float_as_int(y) ^ (__float_as_int(x) & 0x80000000));
    const float ahead = fmaxf(fabsf(x), 1e-30f), size = ahead + fabsf(y);  // on a GPU the least numbers are 0
    const unsigned k = Compass::nearest(__fdividef(up, size));
    const float more = fmaf(tangents[k], ahead, up);
    if (EXACT == AT_DIAGONALS)
      near |= (y != 0) & (sizeof(Pixel) == 1 ? fabsf(x) == fabsf(y) : fabsf(more) < NEAR * size);
    return histogram[k + (__float_as_int(more) >> 31)];  // one less where it is negative
  }
};

// Votes of a run of columns from `x` on, in the rows of a cell from `top` on, in the thread's own histogram.
__device__ inline void vote(const Source& source, int which, const Tangents& tangents, const Histogram& histogram, int x,
                            int top, float* own) {
  if (EXACT == ALWAYS) {
    for (int y = top; y < top + CELL_ROWS; ++y)
      for (int i = 0; i < RUN; ++i) source.vote(which, y, x + i).add_to(own);
    return;
  }
  const Band band = source.band(which);
  constexpr int AT_ONCE = 32 / RUN;  // so many rows have as many pixels as an int has bits
  constexpr bool WHOLE = CELL_ROWS % AT_ONCE == 0;
  // Beyond the border lies what makes the gradient on it zero.
  const int pitch = Band::pitch() * CHANNELS, beyond = HEIGHT > 1 ? pitch : 0;
  const Pixel* row = band.at(top, x);
  const Pixel* before = row + (x > 0 ? -1 : min(1, WIDTH - 1)) * CHANNELS;
  const Pixel* after = row + (x + RUN < WIDTH ? RUN : max(WIDTH - 2, 0) - x) * CHANNELS;
  Numbers above(top > 0 ? row - pitch : row + beyond), here(row);
#pragma unroll 1
  for (int first = 0; first < CELL_ROWS; first += AT_ONCE) {
    unsigned near = 0, bit = 1;
#pragma unroll(CHANNELS == 1 ? AT_ONCE : 4)
    for (int j = 0; j < AT_ONCE; ++j) {
      if (!WHOLE && first + j == CELL_ROWS) break;
      const bool last = !(WHOLE && j + 1 < AT_ONCE) && top + first + j + 1 == HEIGHT;
      const int at = j * pitch;
      const Numbers below(row + (last ? at - beyond : at + pitch));
      for (int i = 0; i < RUN; ++i) {
        const auto vote_of = [&](int c) {
          const int k = i * CHANNELS + c;
          const float left = i > 0 ? here.at[max(k - CHANNELS, 0)] : number(before[at + c]);
          const float right = i + 1 < RUN ? here.at[min(k + CHANNELS, RUN * CHANNELS - 1)] : number(after[at + c]);
          return Vote(right - left, below.at[k] - above.at[k]);
        };
        Vote vote = vote_of(0);
        for (int c = 1; c < CHANNELS; ++c) vote.consider(vote_of(c));
        float& bin = vote.bin(histogram, tangents);
        bin += vote.near ? 0 : sqrtf(vote.squared);
        if (vote.near) near |= bit;
        bit *= 2;
      }
      above = here, here = below;
    }
    row += AT_ONCE * pitch, before += AT_ONCE * pitch, after += AT_ONCE * pitch;
    if (CHANNELS > 1 || EXACT == AT_DIAGONALS) settle(near, source, which, top + first, x, own);
  }
}

// --- A tile -----------------------------------------------------------------------------------------------------------

// From the block `row`, `col` of `image` on, so many rows and columns of blocks, and so many of cells.
struct Tile {
  int image, row, col, rows, cols, down, across;

  __device__ explicit Tile(int i) {
    const int band = i / TILES_ACROSS;
    image = band / TILES_DOWN;
    row = (band - image * TILES_DOWN) * TILE_ROWS, rows = min(TILE_ROWS, DOWN - row);
    col = (i - band * TILES_ACROSS) * TILE_COLS, cols = min(TILE_COLS, ACROSS - col);
    down = rows + BLOCK_ROWS - 1, across = cols + BLOCK_COLS - 1;
  }
};

// The pixels for `rows` rows of a tile's cells, from `first` on, where they lie in an image.
__device__ inline Band band_of(const Pixel* image, const Tile& tile, int first, int rows) {
  const int top = max((tile.row + first) * CELL_ROWS - 1, 0);
  const int bottom = TOGETHER > 1 ? HEIGHT : min((tile.row + first + rows) * CELL_ROWS + 1, HEIGHT);
  const int left = max(tile.col * CELL_COLS - MARGIN, 0);
  const int right = min((tile.col + tile.across) * CELL_COLS + MARGIN, WIDTH);
  return {image + (ptrdiff_t(top) * WIDTH + left) * CHANNELS, top, left, bottom - top, right - left};
}

// Whether there are floats among these bytes that no image has.
template <class Parts>
__device__ inline bool impossible(const Parts& parts) {
  bool found = false;
  for (int i = 0; i < int(sizeof(Parts) / sizeof(int)); ++i)
    found |= !(fabsf(__int_as_float(((const int*)&parts)[i])) <= LARGEST);
  return found;
}

// Copies the rows of a band, in pieces of which a row has a whole number, and these in parts. Rows of several images,
// all of theirs, follow one another here and there. Tells whether they hold what is impossible.
template <class Piece, class Part>
__device__ inline bool copy_rows(const Band& band, int rows, char* memory) {
  struct alignas(sizeof(Piece)) Parts {
    Part at[sizeof(Piece) / sizeof(Part)];
  };
  constexpr int PIXEL = CHANNELS * sizeof(Pixel), AT_ONCE = 4;  // pieces on their way
  const int pieces = band.cols * PIXEL / int(sizeof(Piece)), across = min(pieces, THREADS), down = THREADS / across;
  const int row = quotient(threadIdx.x, across), col = threadIdx.x - row * across;
  bool found = false;
  for (int piece = col; piece < pieces; piece += across)
#pragma unroll 1
    for (int first = row < down ? row : rows; first < rows; first += AT_ONCE * down) {
      const char* from = (const char*)band.pixels + first * (WIDTH * PIXEL) + piece * sizeof(Piece);
      char* to = memory + first * (PITCH * PIXEL) + piece * sizeof(Piece);
      Parts parts[AT_ONCE];
      for (int k = 0; k < AT_ONCE; ++k)
        if (first + k * down < rows) parts[k] = *(const Parts*)(from + k * down * (WIDTH * PIXEL));
      for (int k = 0; k < AT_ONCE; ++k)
        if (first + k * down < rows) {
          for (int j = 0; j < int(sizeof(Piece) / sizeof(Part)); ++j)
            ((Part*)(to + k * down * (PITCH * PIXEL)))[j] = parts[k].at[j];
          if (LOOKS) found |= impossible(parts[k]);
        }
    }
  return found;
}

__device__ inline bool copy(const Band& band, int rows, char* memory) {
  if (PART == 16) return copy_rows<uint4, uint4>(band, rows, memory);
  if (PIECE == 16) return copy_rows<uint4, unsigned>(band, rows, memory);
  if (PIECE == 4) return copy_rows<unsigned, unsigned>(band, rows, memory);
  return copy_rows<Pixel, Pixel>(band, rows, memory);
}

// Of which tiles all pixels are float32 that stand for some k / 255: a bit for each. All threads ask, and are told the
// same.
__device__ inline unsigned of_levels(Band band, int count, const char* memory) {
  unsigned found = 0;
  for (int which = 0; which < count; ++which) {
    if (STAGED) band.pixels = (const Pixel*)(memory + which * ROOM);
    bool others = false;
    for (int y = 0; y < band.rows; ++y)
      for (int i = threadIdx.x; i < band.cols * CHANNELS; i += THREADS) {
        const float x = band.at(band.top + y, band.left)[i];
        others |= !(fabsf(fmaf(x, 255, -rintf(x * 255))) < 3e-5f);  // fma: the product is not rounded
      }
    found |= unsigned(!__syncthreads_or(others)) << which;
  }
  return found;
}

// --- Cells and blocks -------------------------------------------------------------------------------------------------

// The cells of tiles: their histograms, and the sums of their numbers or squares, as the norm wants.
struct Cells {
  float *histograms, *sums;

  // Adds the votes of `count` runs from `first` on; the first cell that has RUNS of them is number `offset`. All runs of
  // a cell have come if a warp takes whole cells.
  __device__ void add(const float* votes, int first, int count, int offset) const {
    constexpr float scale = 1 / (WHITE * CELL_ROWS * CELL_COLS);
#pragma unroll 1
    for (int cell = first / RUNS + threadIdx.x; cell * RUNS < first + count; cell += THREADS) {
      constexpr bool whole = 32 % RUNS == 0;
      const int begin = whole ? cell * RUNS : max(cell * RUNS, first);
      const int end = whole ? begin + RUNS : min((cell + 1) * RUNS, first + count);
      float* histogram = histograms + (offset + cell) * ORIENTATIONS;
      float total = 0;
      for (int k = 0; k < ORIENTATIONS; ++k) {
        float sum = whole || begin == cell * RUNS ? 0 : histogram[k];
        for (int run = begin; run < end; ++run) {
          const float* vote = votes + Compass::bin(k) * THREADS + run - first;
          sum = fmaf(vote[0], scale, sum);
          if (Compass::bin(k) == 0) sum = fmaf(vote[ORIENTATIONS * THREADS], scale, sum);
        }
        histogram[k] = sum;
        total = fmaf(sum, NORM == L2 || NORM == L2_HYS ? sum : 1, total);
      }
      sums[offset + cell] = total;
    }
  }
};

// Votes for `rows` rows of cells of `count` tiles like this, from `first_row` on; the bands lie ROOM bytes apart.
__device__ inline void fill(const Cells& cells, int first_row, int rows, int count, const Tile& tile,
                            const Source& source, const Tangents& tangents, float* votes) {
  const int runs_across = tile.across * RUNS, n_runs = count * rows * runs_across;
  float* own = votes + threadIdx.x;
  const Histogram histogram(source.memory, own);
  for (int first = 0; first < n_runs; first += THREADS) {
    const int run = min(first + int(threadIdx.x), n_runs - 1);  // in the end some are taken twice: lanes ask each other
    const int row = quotient(run, runs_across), col = run - row * runs_across, which = quotient(row, rows);
    const int y = (tile.row + first_row + row - which * rows) * CELL_ROWS, x = tile.col * CELL_COLS + col * RUN;
    for (int k = 0; k < Compass::BINS; ++k) own[k * THREADS] = 0;
    vote(source, which, tangents, histogram, x, y, own);
    __syncthreads();
    cells.add(votes, first, min(THREADS, n_runs - first), first_row * tile.across);
    __syncthreads();
  }
}

// The blocks of `count` tiles like this. LANES of a warp share one, whose numbers they take WIDE at a time.
struct Blocks {
  static constexpr int ROW = BLOCK_COLS * ORIENTATIONS, SIZE = BLOCK_ROWS * ROW;
  static constexpr int WIDE = SIZE % 4 == 0 ? 4 : SIZE % 2 == 0 ? 2 : 1, UNIT = ROW % WIDE == 0 ? WIDE : ROW % 2 ? 1 : 2;
  static constexpr int PIECES = SIZE / WIDE, MOST = (PIECES + LANES - 1) / LANES;

  struct alignas(4 * WIDE) Piece {
    float at[WIDE];
  };

  const Cells& cells;
  const Tile& tile;
  int count;

  // The sum of a block's numbers, or of their squares, as the norm wants. Its first cell is number `corner`.
  __device__ float total(int corner) const {
    float total = 0;
    for (int i = 0; i < BLOCK_ROWS; ++i)
      for (int j = 0; j < BLOCK_COLS; ++j) total += cells.sums[corner + i * tile.across + j];
    return total;
  }

  __device__ static int number_of_piece(int k) { return threadIdx.x % LANES + k * LANES; }
  __device__ static bool has_piece(int k) { return PIECES % LANES == 0 || number_of_piece(k) < PIECES; }

  __device__ Piece piece(int corner, int number) const {
    const int gap = tile.across * ORIENTATIONS - ROW;  // between two rows of its cells
    Piece piece;
    for (int i = 0; i < WIDE; ++i) {
      const int at = number * WIDE + i, row = (at - i % UNIT) / ROW;
      piece.at[i] = cells.histograms[corner * ORIENTATIONS + row * gap + at];
    }
    return piece;
  }

  // Writes a lane's pieces of a block. All lanes that share it call this, though only those that are `real` write.
  __device__ void write(int corner, bool real, Piece* to) const {
    constexpr float eps = 1e-5f;
    const float sum = total(corner);
    float factor = NORM == L2 || NORM == L2_HYS ? rsqrtf(sum + eps * eps) : 1 / (sum + eps);
    const float most = 0.2f / factor;  // becomes 0.2
    float squares = 0;
    Piece pieces[MOST];
    for (int k = 0; k < MOST; ++k) {
      if (!has_piece(k)) break;
      pieces[k] = piece(corner, number_of_piece(k));
      if (NORM == L2_HYS)
        for (float& v : pieces[k].at) v = fminf(v, most), squares = fmaf(v, v, squares);
    }
    if (NORM == L2_HYS) {
      for (int distance = LANES / 2; distance > 0; distance /= 2)
        squares += __shfl_xor_sync(0xffffffffu, squares, distance);
      factor *= rsqrtf(squares * factor * factor + eps * eps);
    }
    for (int k = 0; k < MOST; ++k) {
      if (!has_piece(k) || !real) break;
      for (float& v : pieces[k].at) v = NORM == L1_SQRT ? sqrtf(v * factor) : v * factor;
      to[number_of_piece(k)] = pieces[k];
    }
  }

  __device__ void write(float* features) const {
    constexpr int AT_ONCE = 32 / LANES;
    const int per_tile = tile.rows * tile.cols, n = count * per_tile;
    for (int first = threadIdx.x / 32 * AT_ONCE; first < n; first += THREADS / LANES) {  // a warp's lanes share sums
      const int mine = first + lane() / LANES, block = min(mine, n - 1), which = quotient(block, per_tile);
      const int inside = block - which * per_tile, row = quotient(inside, tile.cols), col = inside - row * tile.cols;
      const size_t place = (which * DOWN + row) * ACROSS + col;
      const int corner = (which * tile.down + row) * tile.across + col;
      write(corner, mine < n, (Piece*)(features + place * SIZE));
    }
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    hog(const Pixel* images, int n_tiles, int root, const double* levels, const double* thresholds,
        const float* all_tangents, float* workspace, int* impossible_found, float* features) {
  extern __shared__ uint4 shared[];
  char* const memory = (char*)shared;
  const Tile tile(blockIdx.x * TOGETHER);
  const int count = min(TOGETHER, n_tiles - int(blockIdx.x) * TOGETHER), n_cells = TOGETHER * tile.down * tile.across;

  float* const votes = (float*)(memory + TOGETHER * ROOM);
  float* const sums = IN_SHARED ? votes + Compass::BINS * THREADS : workspace + size_t(blockIdx.x) * IN_WORKSPACE;
  const Cells cells{sums + n_cells, sums};

  const Tangents tangents(all_tangents);
  const Exact exact{levels, thresholds, root, false};
  const Pixel* const image = images + tile.image * (size_t(HEIGHT) * WIDTH * CHANNELS);
  for (int first = 0; first < tile.down; first += BAND_ROWS) {
    const int rows = min(BAND_ROWS, tile.down - first);
    const Band band = band_of(image, tile, first, rows);
    const bool found = STAGED && copy(band, count * band.rows, memory);
    if (LOOKS && __syncthreads_or(found)) {
      *impossible_found = 1;
      return;
    }
    if (!LOOKS) __syncthreads();
    constexpr bool may_be_levels = sizeof(Pixel) == 4 && (CHANNELS > 1 || EXACT != HARDLY);
    const Source source{band, exact, may_be_levels ? of_levels(band, count, memory) : 0, memory};
    fill(cells, first, rows, count, tile, source, tangents, votes);
  }
  features += ((size_t(tile.image) * DOWN + tile.row) * ACROSS + tile.col) * Blocks::SIZE;
  Blocks{cells, tile, count}.write(features);
}
