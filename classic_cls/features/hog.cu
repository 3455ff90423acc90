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
#include "_cuda.cuh"

enum Precision { HARDLY, AT_DIAGONALS, ALWAYS };
enum Norm { L1, L1_SQRT, L2, L2_HYS };

constexpr float NEAR = 1e-4f;  // relatively: float32 gradients of k / 255 are good to a third of that
constexpr float WHITE = sizeof(Pixel) == 1 ? 255 : 1;
constexpr int RUNS = CELL_COLS / RUN;  // of a cell

// The pixels that a thread block has at hand: rows from `top` on, columns from `left` on.
struct Band {
  const Pixel* pixels;
  int height, width, top, left, pitch;  // the first two are the image's
  int rows, cols;

  __device__ const Pixel* at(int y, int x) const { return pixels + ((y - top) * pitch + x - left) * CHANNELS; }
};

// Turns the cosine of an angle, over the sum of cosine and sine, into the number of the nearest threshold, 0 to n.
struct Compass {
  static constexpr unsigned ZERO = 0x4b000000;  // the bits of 2^23

  // More by ZERO than the number. The line is good to 4.1 degrees, the cubic to 0.36: to 0.4 of a bin up to 16
  // orientations, and up to 200.
  static __device__ unsigned nearest(float slope) {
    constexpr float n = ORIENTATIONS;
    const float size = fabsf(slope);
    const float way = ORIENTATIONS <= 16 ? n / 2 : fmaf(size, fmaf(size, n * -0.463676f, n * 0.695513f), n * 0.268162f);
    // At 2^23 a float is rounded to a whole number: to the nearest, or down after a half was added.
    if (ORIENTATIONS % 2 == 0) return __float_as_int(fmaf(-slope, way, 8388608 + n / 2));
    return __float_as_int(__fmaf_rd(-slope, way, 8388608 + (n + 1) / 2));
  }
};

// --- In double precision ----------------------------------------------------------------------------------------------

struct Exact {
  const double *levels, *thresholds;
  int root;
  bool of_levels;  // all float32 around here stand for some k / 255, and are read as that, as in hog.cpp

  __device__ double value(unsigned char pixel) const { return levels[pixel]; }
  __device__ double value(double pixel) const { return root ? sqrt(pixel) : pixel; }
  __device__ double value(float pixel) const {
    const double x = pixel;
    return value(of_levels ? rint(x * 255) / 255 : x);
  }
};

struct Gradient {
  double x, y, squared;
};

__device__ inline Gradient gradient(const Band& band, const Exact& exact, int y, int x, int c) {
  const bool inside_x = x > 0 && x + 1 < band.width, inside_y = y > 0 && y + 1 < band.height;
  Gradient g;
  g.x = inside_x ? exact.value(band.at(y, x + 1)[c]) - exact.value(band.at(y, x - 1)[c]) : 0;
  g.y = inside_y ? exact.value(band.at(y + 1, x)[c]) - exact.value(band.at(y - 1, x)[c]) : 0;
  g.squared = g.x * g.x + g.y * g.y;
  return g;
}

// The root of x * x + y * y in the steps of glibc from 2.35 on (C. F. Borges, "An improved algorithm for hypot(a, b)",
// 2019): once in 200 times it is not the nearest double, nor is what scikit-image compares, and here that decides.
__device__ inline double hypotenuse(double x, double y) {
  const double a = max(fabs(x), fabs(y)), b = min(fabs(x), fabs(y)), root = sqrt(a * a + b * b);
  const bool alike = root <= 2 * b;
  const double rest = root - (alike ? b : a);
  const double more = alike ? a * (2 * rest - a) : 2 * rest * (a - 2 * b);
  const double less = alike ? (rest - 2 * (a - b)) * rest : (4 * rest - b) * b + rest * rest;
  return root > 0 ? root - (more + less) / (2 * root) : 0;
}

// Where two channels are equally strong to within rounding, scikit-image's rounding decides: it compares hypotenuses.
__device__ inline bool stronger(const Gradient& g, const Gradient& best) {
  const bool near = fabs(g.squared - best.squared) <= g.squared * 1e-15 && (g.x != best.x || g.y != best.y);
  return near ? hypotenuse(g.x, g.y) > hypotenuse(best.x, best.y) : g.squared > best.squared;
}

// thresholds[gy >= 0][k] is a cotangent in two parts, whose sum has twice the precision: the one at which scikit-image's
// angle, rounded as it is, changes bins. So gradients on a threshold need no case of their own.
__device__ inline int bin(const Gradient& g, const Exact& exact) {
  const bool turn = g.y < 0 || (g.y == 0 && g.x < 0);
  const double x = turn ? -g.x : g.x, y = turn ? -g.y : g.y;
  const float size = float(fabs(x) + y);
  const int n = ORIENTATIONS, k = Compass::nearest(size > 0 ? float(x) / size : 0) - Compass::ZERO;
  if (k == 0 || k == n) return max(k - 1, 0);
  const double* cotangent = exact.thresholds + 2 * ((g.y < 0 ? 0 : n) + k);
  return fma(-cotangent[0], y, x) <= cotangent[1] * y ? k : k - 1;
}

__device__ inline void vote_exactly(const Band& band, const Exact& exact, int y, int x, float* own, int stride) {
  Gradient best = gradient(band, exact, y, x, 0);
  for (int c = 1; c < CHANNELS; ++c) {
    const Gradient g = gradient(band, exact, y, x, c);
    if (stronger(g, best)) best = g;
  }
  own[bin(best, exact) * stride] += sqrtf(float(best.squared)) * WHITE;
}

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

// A thread's own, and the cotangents that all share; both in shared memory. The numbers that a Compass gives are more by
// ZERO, and the offsets here less by what that makes up: unsigned numbers wrap around.
struct Histogram {
  char* memory;
  unsigned cotangents, bins, stride;

  __device__ Histogram(char* memory, const float* cotangents, float* own)
      : memory(memory),
        cotangents(opaque((char*)cotangents - memory - Compass::ZERO * 4)),
        bins((char*)own - memory - Compass::ZERO * 4 * blockDim.x),
        stride(opaque(4 * blockDim.x)) {}
  __device__ float cotangent(unsigned k) const { return *(float*)(memory + (cotangents + k * 4)); }
  __device__ float& bin(unsigned k) const { return *(float*)(memory + (bins + k * stride)); }
};

struct Vote {
  float x, y, squared;
  bool near = false;  // whether rounding could make it the other channel, or the other bin

  __device__ Vote(float gx, float gy) : x(gx), y(gy), squared(fmaf(gx, gx, gy * gy)) {}

  // Takes the stronger of two.
  __device__ void consider(const Vote& other) {
    const float ahead = other.squared - squared;
    const bool doubtful = sizeof(Pixel) == 1  // whose squares are exact, and opposite gradients have the same bin
                              ? (ahead == 0) & (x * other.y != other.x * y)
                              : (fabsf(ahead) <= NEAR * squared) & ((other.x != x) | (other.y != y));
    near = doubtful | (near & !(ahead > 0));
    if (ahead > 0) x = other.x, y = other.y, squared = other.squared;
  }

  // Where its bin lies in a histogram. No arctangent: a rough angle leaves two bins, and a cotangent decides. With gy
  // made positive, threshold k is reached where gx / gy is at most cot(pi k / n).
  __device__ float& bin(const Histogram& histogram) {
    const float steep = fmaf(x, 1e-30f, y);  // on the axis, gx has to be made positive
    const float ahead = __int_as_float(__float_as_int(x) ^ (__float_as_int(steep) & 0x80000000));
    const float up = fmaxf(fabsf(steep), 1e-30f), size = fabsf(ahead) + up;  // on a GPU the least numbers are 0
    const unsigned k = Compass::nearest(__fdividef(ahead, size));
    const float left = fmaf(histogram.cotangent(k), up, -ahead);
    if (EXACT == AT_DIAGONALS)
      near |= (x != 0) & (sizeof(Pixel) == 1 ? fabsf(x) == fabsf(y) : fabsf(left) < NEAR * size);
    return histogram.bin(k + (__float_as_int(left) >> 31));  // one less where it is negative
  }
};

// Votes of a run of columns from `x` on, down the rows from `top` to `bottom`, in the thread's own histogram.
__device__ inline void vote(const Band& band, const Exact& exact, const Histogram& histogram, int x, int top, int bottom,
                            float* own) {
  if (EXACT == ALWAYS) {
    for (int y = top; y < bottom; ++y)
      for (int i = 0; i < RUN; ++i) vote_exactly(band, exact, y, x + i, own, blockDim.x);
    return;
  }
  constexpr int AT_ONCE = 32 / RUN;  // so many rows have as many pixels as an int has bits
  // Beyond the border lies what makes the gradient on it zero.
  const int before = (x > 0 ? -1 : min(1, band.width - 1)) * CHANNELS;
  const int after = (x + RUN < band.width ? RUN : max(band.width - 2, 0) - x) * CHANNELS;
  const int pitch = band.pitch * CHANNELS, last = band.height - 1;
  const Pixel* row = band.at(top, x);
  Numbers above(row + (STAGED || top > 0 ? -pitch : top < last ? pitch : 0)), here(row);
#pragma unroll 1
  for (int first = top; first < bottom; first += AT_ONCE) {
    unsigned near = 0;
#pragma unroll(CHANNELS == 1 ? 16 / RUN : 2)
    for (int y = first; y < min(first + AT_ONCE, bottom); ++y, row += pitch) {
      const Numbers below(row + (STAGED || y < last ? pitch : y > 0 ? -pitch : 0));
      for (int i = 0; i < RUN; ++i) {
        const auto vote_of = [&](int c) {
          const int k = i * CHANNELS + c;
          const float left = i > 0 ? here.at[max(k - CHANNELS, 0)] : number(row[before + c]);
          const float right = i + 1 < RUN ? here.at[min(k + CHANNELS, RUN * CHANNELS - 1)] : number(row[after + c]);
          return Vote(right - left, below.at[k] - above.at[k]);
        };
        Vote vote = vote_of(0);
        for (int c = 1; c < CHANNELS; ++c) vote.consider(vote_of(c));
        float& bin = vote.bin(histogram);
        bin += vote.near ? 0 : sqrtf(vote.squared);
        near |= unsigned(vote.near) << ((y - first) * RUN + i);
      }
      above = here, here = below;
    }
    for (; near; near &= near - 1) {
      const int pixel = __ffs(near) - 1;
      vote_exactly(band, exact, first + pixel / RUN, x + pixel % RUN, own, blockDim.x);
    }
  }
}

// --- A tile -----------------------------------------------------------------------------------------------------------

// An image has down x across blocks in tiles_down x tiles_across tiles of tile_rows x tile_cols, fewer at the end. A
// thread block takes `together` tiles: one, or as many images that are a tile each. A tile is worked on `band_rows` rows
// of cells at a time, whose pixels take `room` bytes of shared memory where they are STAGED, `pitch` pixels a row with
// `margin` on either side. Rows are fetched in pieces of `piece` bytes, and stored in pieces of `part` bytes.
struct Plan {
  int height, width, down, across, tiles_down, tiles_across, tile_rows, tile_cols;
  int together, band_rows, margin, pitch, room, piece, part;
};

// From the block `row`, `col` of `image` on, so many rows and columns of blocks, and so many of cells.
struct Tile {
  int image, row, col, rows, cols, down, across;

  __device__ Tile(const Plan& plan, int i) {
    const int band = plan.tiles_across == 1 ? i : i / plan.tiles_across;  // a division takes 25 instructions
    image = plan.tiles_down == 1 ? band : band / plan.tiles_down;
    row = (band - image * plan.tiles_down) * plan.tile_rows, rows = min(plan.tile_rows, plan.down - row);
    col = (i - band * plan.tiles_across) * plan.tile_cols, cols = min(plan.tile_cols, plan.across - col);
    down = rows + BLOCK_ROWS - 1, across = cols + BLOCK_COLS - 1;
  }
};

// Copies the `count` bands of a Band, in pieces of which a row has a whole number, and these in parts. Images lie
// `per_image` pixels' channels apart, bands in shared memory plan.room bytes. Beyond the border goes the row that makes
// the gradient on it zero.
template <class Piece, class Part>
__device__ inline void copy_rows(const Band& band, size_t per_image, int count, const Plan& plan, char* memory) {
  struct alignas(sizeof(Piece)) Parts {
    Part at[sizeof(Piece) / sizeof(Part)];
  };
  constexpr int PIXEL = CHANNELS * sizeof(Pixel), AT_ONCE = 5;  // pieces on their way
  const int pieces = band.cols * PIXEL / int(sizeof(Piece)), total = count * band.rows * pieces;
  const int stride = band.width * PIXEL, image = per_image * sizeof(Pixel), pitch = plan.pitch * PIXEL;
  const int above = min(1, band.height - 1) - band.top, last = band.height - 1 - band.top;
  const float per_row = 1.f / pieces, per_band = 1.f / band.rows;
  for (int first = threadIdx.x; first < total; first += AT_ONCE * blockDim.x) {
    Parts parts[AT_ONCE];
    int to[AT_ONCE];
    for (int k = 0; k < AT_ONCE; ++k) {
      const int i = min(first + k * int(blockDim.x), total - 1);  // in the end some come twice: no branch
      const int line = quotient(i, per_row), at = (i - line * pieces) * int(sizeof(Piece));
      const int which = quotient(line, per_band), row = line - which * band.rows;
      const int from = row < -band.top ? above : row > last ? max(last - 1, -band.top) : row;
      parts[k] = *(const Parts*)((const char*)band.pixels + (which * image + from * stride + at));
      to[k] = which * plan.room + row * pitch + at;
    }
    for (int k = 0; k < AT_ONCE; ++k)
      for (int j = 0; j < int(sizeof(Piece) / sizeof(Part)); ++j) ((Part*)(memory + to[k]))[j] = parts[k].at[j];
  }
}

__device__ inline void copy(const Band& band, size_t per_image, int count, const Plan& plan, char* memory) {
  if (plan.part == 16) copy_rows<uint4, uint4>(band, per_image, count, plan, memory);
  else if (plan.piece == 16) copy_rows<uint4, unsigned>(band, per_image, count, plan, memory);
  else if (plan.piece == 4) copy_rows<unsigned, unsigned>(band, per_image, count, plan, memory);
  else copy_rows<Pixel, Pixel>(band, per_image, count, plan, memory);
}

// Of which tiles all pixels are float32 that stand for some k / 255: a bit for each. All threads ask, and are told the
// same.
__device__ inline unsigned of_levels(Band band, int count, const char* memory, const Plan& plan) {
  unsigned found = 0;
  for (int which = 0; which < count; ++which) {
    if (STAGED) band.pixels = (const Pixel*)(memory + which * plan.room), band.pitch = plan.pitch;
    bool others = false;
    for (int y = 0; y < band.rows; ++y)
      for (int i = threadIdx.x; i < band.cols * CHANNELS; i += blockDim.x) {
        const float x = band.at(band.top + y, band.left)[i];
        others |= !(fabsf(fmaf(x, 255, -rintf(x * 255))) < 3e-5f);  // fma: the product is not rounded
      }
    found |= unsigned(!__syncthreads_or(others)) << which;
  }
  return found;
}

// The pixels for `rows` rows of a tile's cells, from `first` on, where they lie in an image.
__device__ inline Band band_of(const Pixel* image, const Plan& plan, const Tile& tile, int first, int rows) {
  const int above = (tile.row + first) * CELL_ROWS - 1, below = (tile.row + first + rows) * CELL_ROWS + 1;
  const int top = STAGED ? above : max(above, 0), bottom = STAGED ? below : min(below, plan.height);
  const int left = max(tile.col * CELL_COLS - plan.margin, 0);
  const int right = min((tile.col + tile.across) * CELL_COLS + plan.margin, plan.width);
  const Pixel* from = image + (ptrdiff_t(top) * plan.width + left) * CHANNELS;
  return {from, plan.height, plan.width, top, left, plan.width, bottom - top, right - left};
}

// --- Cells and blocks -------------------------------------------------------------------------------------------------

// The cells of tiles: their histograms, and the sums of their numbers or squares, as the norm wants.
struct Cells {
  float *histograms, *sums;

  // Adds the votes of `count` runs from `first` on; the first cell that has RUNS of them is number `offset`. All runs of
  // a cell have come if a warp takes whole cells.
  __device__ void add(const float* votes, int first, int count, int offset) const {
    constexpr float scale = 1 / (WHITE * CELL_ROWS * CELL_COLS);
    for (int cell = first / RUNS + threadIdx.x; cell * RUNS < first + count; cell += blockDim.x) {
      constexpr bool whole = 32 % RUNS == 0;
      const int begin = whole ? cell * RUNS : max(cell * RUNS, first);
      const int end = whole ? begin + RUNS : min((cell + 1) * RUNS, first + count);
      float* histogram = histograms + (offset + cell) * ORIENTATIONS;
      float total = 0;
      for (int k = 0; k < ORIENTATIONS; ++k) {
        float sum = whole || begin == cell * RUNS ? 0 : histogram[k];
        for (int run = begin; run < end; ++run) sum = fmaf(votes[k * blockDim.x + run - first], scale, sum);
        histogram[k] = sum;
        total = fmaf(sum, NORM == L2 || NORM == L2_HYS ? sum : 1, total);
      }
      sums[offset + cell] = total;
    }
  }
};

// Votes for `rows` rows of cells of `count` tiles like this, from `first_row` on; the bands lie `plan.room` bytes apart.
__device__ inline void fill(const Cells& cells, int first_row, int rows, int count, const Plan& plan, const Tile& tile,
                            Band band, Exact exact, unsigned levels_in, char* memory, float* cotangents, float* votes) {
  const int runs_across = tile.across * RUNS, n_runs = count * rows * runs_across;
  const float per_row = 1.f / runs_across, per_tile = 1.f / rows;
  float* own = votes + threadIdx.x;
  const Histogram histogram(memory, cotangents, own);
  for (int first = 0; first < n_runs; first += blockDim.x) {
    const int run = first + threadIdx.x, row = quotient(run, per_row), col = run - row * runs_across;
    const int which = quotient(row, per_tile);
    const int y = (tile.row + first_row + row - which * rows) * CELL_ROWS, x = tile.col * CELL_COLS + col * RUN;
    if (STAGED) band.pixels = (const Pixel*)(memory + which * plan.room), band.pitch = plan.pitch;
    exact.of_levels = levels_in >> which & 1;
    for (int k = 0; k < ORIENTATIONS; ++k) own[k * blockDim.x] = 0;
    if (run < n_runs) vote(band, exact, histogram, x, y, y + CELL_ROWS, own);
    __syncthreads();
    cells.add(votes, first, min(int(blockDim.x), n_runs - first), first_row * tile.across);
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

  // What the numbers of a block are multiplied with before they are clipped. Its first cell is number `corner`.
  __device__ float factor(int corner) const {
    constexpr float eps = 1e-5f;
    float total = 0;
    for (int i = 0; i < BLOCK_ROWS; ++i)
      for (int j = 0; j < BLOCK_COLS; ++j) total += cells.sums[corner + i * tile.across + j];
    return NORM == L2 || NORM == L2_HYS ? rsqrtf(total + eps * eps) : 1 / (total + eps);
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
    const float once = factor(corner);
    float squares = 0;
    Piece pieces[MOST];
    for (int k = 0; k < MOST; ++k) {
      if (!has_piece(k)) break;
      pieces[k] = piece(corner, number_of_piece(k));
      for (float& v : pieces[k].at) {
        v = NORM == L2_HYS ? fminf(v * once, 0.2f) : v * once;
        squares = fmaf(v, v, squares);
      }
    }
    float again = 1;
    if (NORM == L2_HYS) {
      for (int distance = LANES / 2; distance > 0; distance /= 2)
        squares += __shfl_xor_sync(0xffffffffu, squares, distance);
      again = rsqrtf(squares + 1e-10f);
    }
    for (int k = 0; k < MOST; ++k) {
      if (!has_piece(k) || !real) break;
      for (float& v : pieces[k].at) v = NORM == L2_HYS ? v * again : NORM == L1_SQRT ? sqrtf(v) : v;
      to[number_of_piece(k)] = pieces[k];
    }
  }

  // An image has down x across blocks.
  __device__ void write(float* features, int down, int across) const {
    const int per_tile = tile.rows * tile.cols, n = count * per_tile, group = threadIdx.x / LANES;
    const float inverse = 1.f / per_tile, per_row = 1.f / tile.cols;
    for (int first = 0; first < n; first += blockDim.x / LANES) {  // all of a warp, as they share sums
      const int block = min(first + group, n - 1), which = quotient(block, inverse);
      const int inside = block - which * per_tile, row = quotient(inside, per_row), col = inside - row * tile.cols;
      const size_t place = (which * down + row) * across + col;
      const int corner = (which * tile.down + row) * tile.across + col;
      write(corner, first + group < n, (Piece*)(features + place * SIZE));
    }
  }
};

// Where cells are not IN_SHARED memory, each tile has `in_workspace` numbers of the workspace.
extern "C" __global__ void __launch_bounds__(128, CHANNELS == 1 ? 6 : 4)
    hog(const Pixel* images, int n_tiles, int height, int width, int down, int across, int tiles_down, int tiles_across,
        int tile_rows, int tile_cols, int together, int band_rows, int margin, int pitch, int room, int piece, int part,
        int root, const double* levels, const double* thresholds, int in_workspace, float* workspace, float* features) {
  extern __shared__ uint4 shared[];
  char* const memory = (char*)shared;
  const Plan plan{height,   width,     down,   across, tiles_down, tiles_across, tile_rows, tile_cols,
                  together, band_rows, margin, pitch,  room,       piece,        part};
  const Tile tile(plan, blockIdx.x * together);
  const int count = min(together, n_tiles - int(blockIdx.x) * together), n_cells = together * tile.down * tile.across;

  float* const cotangents = (float*)(memory + together * room);
  float* const votes = cotangents + ORIENTATIONS + 1;
  float* const sums = IN_SHARED ? votes + ORIENTATIONS * blockDim.x : workspace + size_t(blockIdx.x) * in_workspace;
  const Cells cells{sums + n_cells, sums};

  for (int k = threadIdx.x; k <= ORIENTATIONS; k += blockDim.x) {
    const float threshold = float(thresholds[2 * (ORIENTATIONS + k % ORIENTATIONS)]);
    cotangents[k] = k == 0 ? 3e38f : k == ORIENTATIONS ? -3e38f : threshold;  // always reached, and never
  }
  const size_t per_image = size_t(height) * (width * CHANNELS);
  const Exact exact{levels, thresholds, root, false};
  for (int first = 0; first < tile.down; first += band_rows) {
    const int rows = min(band_rows, tile.down - first);
    const Band band = band_of(images + tile.image * per_image, plan, tile, first, rows);
    if (STAGED) copy(band, per_image, count, plan, memory);
    __syncthreads();
    constexpr bool may_be_levels = sizeof(Pixel) == 4 && (CHANNELS > 1 || EXACT != HARDLY);
    const unsigned levels_in = may_be_levels ? of_levels(band, count, memory, plan) : 0;
    fill(cells, first, rows, count, plan, tile, band, exact, levels_in, memory, cotangents, votes);
  }
  features += ((size_t(tile.image) * down + tile.row) * across + tile.col) * Blocks::SIZE;
  Blocks{cells, tile, count}.write(features, down, across);
}
