// Histograms of oriented gradients on a GPU: the conventions and the numbers of hog.cpp.
//
// The loader defines Pixel (unsigned char, float or double), CHANNELS (1 or 3), RUN (the columns that a thread takes, 4
// or 1; a cell has a multiple of them), STAGED (whether pixels are read from shared memory) and EXACT: which gradients are
// found in double precision, since rounding may decide. HARDLY any: where channels are equally strong. AT_DIAGONALS, too,
// which are thresholds for 4, 8, 12, ... orientations. Or ALWAYS.
//
// A thread block takes a tile: some rows and columns of blocks, with all cells of theirs. It goes down the tile in bands
// of cells: their pixels are copied to shared memory as they are; a thread takes a run of columns in a cell and votes
// into a histogram of its own; the runs of each cell are summed. In the end the tile's blocks are normalised.
#include "_cuda.cuh"

enum Precision { HARDLY, AT_DIAGONALS, ALWAYS };
enum Norm { L1, L1_SQRT, L2, L2_HYS };

constexpr float NEAR = 1e-4f;  // relatively: float32 gradients of k / 255 are good to a third of that

// The pixels that a thread block has at hand: rows from `top` on, columns from `left` on.
struct Band {
  const Pixel* pixels;
  int height, width, top, left, pitch;  // the first two are the image's

  __device__ const Pixel* at(int y, int x) const { return pixels + ((y - top) * pitch + x - left) * CHANNELS; }
};

// Turns the cosine of an angle, over the sum of cosine and sine, into the number of the nearest threshold, 0 to n.
struct Compass {
  static constexpr unsigned ZERO = 0x4b000000;  // the bits of 2^23
  float half, constant, linear, square;

  // The cubic is good to 0.0062 over pi: to 0.4 of a bin up to 200 orientations.
  __device__ explicit Compass(int n)
      : half(n / 2.f), constant(n * 0.268162f), linear(n * 0.695513f), square(n * -0.463676f) {}
  // More by ZERO than the number.
  __device__ unsigned nearest(float slope) const {
    const float size = fabsf(slope), way = fmaf(size, fmaf(size, square, linear), constant);
    return __float_as_int(fmaf(-slope, way, half) + 8388608.f);
  }
};

// --- In double precision ----------------------------------------------------------------------------------------------

struct Exact {
  const double *levels, *thresholds;
  int orientations, root;
  float white;
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
  const int n = exact.orientations, k = Compass(n).nearest(size > 0 ? float(x) / size : 0) - Compass::ZERO;
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
  own[bin(best, exact) * stride] += sqrtf(float(best.squared)) * exact.white;
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
    struct alignas(RUN == 4 ? 16 : sizeof(T)) Pixels {
      T at[RUN * CHANNELS];
    };
    const Pixels pixels = *(const Pixels*)from;
    for (int i = 0; i < RUN * CHANNELS; ++i) at[i] = number(pixels.at[i]);
  }
  __device__ void load(const unsigned char* from) {
    const unsigned* words = (const unsigned*)from;
    for (int i = 0; i < RUN * CHANNELS; ++i)  // the byte, and behind it three of 0x4b000000
      at[i] = RUN == 4 ? __int_as_float(__byte_perm(words[i / 4], 0x4b000000, 0x7540 + i % 4)) : number(from[i]);
  }
};

// A thread's own, in shared memory, and the cotangents that all share. The numbers that a Compass gives are more by ZERO,
// and the offsets here less by what that makes up: unsigned numbers wrap around.
struct Histogram {
  char* memory;
  unsigned bins, stride;

  __device__ Histogram(float* own, float* cotangents)
      : memory((char*)cotangents), bins((char*)own - memory - Compass::ZERO * 4 * blockDim.x), stride(4 * blockDim.x) {}
  __device__ float cotangent(unsigned k) const { return *(float*)(memory + (k - Compass::ZERO) * 4); }
  __device__ float& bin(unsigned k, bool less) const {
    return *(float*)(memory + (bins + k * stride - (less ? stride : 0)));
  }
};

struct Vote {
  float x, y, squared;
  float room = 1e30f;  // to what rounding could change; negative where it may be the other channel, or the other bin

  __device__ Vote(float gx, float gy) : x(gx), y(gy), squared(fmaf(gx, gx, gy * gy)) {}

  // Of a difference that decides, between two that differ at all (`other` is 0 where they don't).
  __device__ void look_at(float difference, float size, float other) {
    room = fminf(room, fmaf(-NEAR, fminf(size, fabsf(other) * 1e30f), fabsf(difference)));
  }

  // Takes the stronger of two.
  __device__ void consider(const Vote& other) {
    const float ahead = other.squared - squared;
    look_at(ahead, squared, fmaf(other.x - x, 1024, other.y - y));
    if (ahead > 0) x = other.x, y = other.y, squared = other.squared;
  }

  // Where its bin lies in a histogram. No arctangent: a rough angle leaves two bins, and a cotangent decides. With gy
  // made positive, threshold k is reached where gx / gy is at most cot(pi k / n).
  __device__ float& bin(const Histogram& histogram, const Compass& compass) {
    const float steep = fmaf(x, 1e-30f, y);  // on the axis, gx has to be made positive
    const float ahead = __int_as_float(__float_as_int(x) ^ (__float_as_int(steep) & 0x80000000));
    const float up = fmaxf(fabsf(steep), 1e-30f), size = fabsf(ahead) + up;  // on a GPU the least numbers are 0
    const unsigned k = compass.nearest(__fdividef(ahead, size));
    const float beyond = fmaf(-histogram.cotangent(k), up, ahead);
    if (EXACT == AT_DIAGONALS) look_at(beyond, size, x);
    return histogram.bin(k, beyond > 0);
  }
};

// Votes of a run of columns from `x` on, down the rows from `top` to `bottom`, in the thread's own histogram.
__device__ inline void vote(const Band& band, const Exact& exact, float* cotangents, int x, int top, int bottom,
                            float* own) {
  if (EXACT == ALWAYS) {
    for (int y = top; y < bottom; ++y)
      for (int i = 0; i < RUN; ++i) vote_exactly(band, exact, y, x + i, own, blockDim.x);
    return;
  }
  constexpr int AT_ONCE = 32 / RUN;  // so many rows have as many pixels as an int has bits
  const Histogram histogram(own, cotangents);
  const Compass compass(exact.orientations);
  // Beyond the border lies what makes the gradient on it zero.
  const int before = (x > 0 ? -1 : min(1, band.width - 1)) * CHANNELS;
  const int after = (x + RUN < band.width ? RUN : max(band.width - 2, 0) - x) * CHANNELS;
  const int pitch = band.pitch * CHANNELS, last = band.height - 1;
  const Pixel* row = band.at(top, x);
  Numbers above(row + (top > 0 ? -pitch : top < last ? pitch : 0)), here(row);
#pragma unroll 1
  for (int first = top; first < bottom; first += AT_ONCE) {
    unsigned near = 0;
#pragma unroll(CHANNELS == 1 ? 4 : 2)
    for (int y = first; y < min(first + AT_ONCE, bottom); ++y, row += pitch) {
      const Numbers below(row + (y < last ? pitch : y > 0 ? -pitch : 0));
      for (int i = 0; i < RUN; ++i) {
        const auto vote_of = [&](int c) {
          const int k = i * CHANNELS + c;
          const float left = i > 0 ? here.at[max(k - CHANNELS, 0)] : number(row[before + c]);
          const float right = i + 1 < RUN ? here.at[min(k + CHANNELS, RUN * CHANNELS - 1)] : number(row[after + c]);
          return Vote(right - left, below.at[k] - above.at[k]);
        };
        Vote vote = vote_of(0);
        for (int c = 1; c < CHANNELS; ++c) vote.consider(vote_of(c));
        float& bin = vote.bin(histogram, compass);
        const bool is_near = vote.room < 0;
        bin += is_near ? 0 : sqrtf(vote.squared);
        near |= unsigned(is_near) << ((y - first) * RUN + i);
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

// An image has down x across blocks in tiles_down x tiles_across tiles of tile_rows x tile_cols, fewer at the end. A tile
// is worked on `band_rows` rows of cells at a time, whose pixels take `room` bytes of shared memory where they are
// STAGED, `pitch` pixels a row with `margin` on either side. Rows are fetched in pieces of `piece` bytes.
struct Plan {
  int height, width, cell_rows, cell_cols, block_rows, block_cols, down, across;
  int tiles_down, tiles_across, tile_rows, tile_cols, band_rows, margin, pitch, room, piece;
};

// From the block `row`, `col` of `image` on, so many rows and columns of blocks, and so many of cells.
struct Tile {
  int image, row, col, rows, cols, down, across;

  __device__ Tile(const Plan& plan, int i) {
    const int band = i / plan.tiles_across;
    image = band / plan.tiles_down;
    row = (band - image * plan.tiles_down) * plan.tile_rows, rows = min(plan.tile_rows, plan.down - row);
    col = (i - band * plan.tiles_across) * plan.tile_cols, cols = min(plan.tile_cols, plan.across - col);
    down = rows + plan.block_rows - 1, across = cols + plan.block_cols - 1;
  }
};

// Copies rows of `length` pixels' channels, in pieces of which a row has a whole number.
template <class Piece>
__device__ inline void copy_rows(const Pixel* from, size_t stride, int rows, int length, int pitch, Pixel* to) {
  const int pieces = length * int(sizeof(Pixel)) / int(sizeof(Piece));
  const float per_row = 1.f / pieces;
  for (int i = threadIdx.x; i < rows * pieces; i += blockDim.x) {
    const int row = quotient(i, per_row), piece = i - row * pieces;
    ((Piece*)(to + row * pitch))[piece] = ((const Piece*)(from + row * stride))[piece];
  }
}

__device__ inline void copy(const Pixel* from, size_t stride, int rows, int length, const Plan& plan, Pixel* to) {
  const int pitch = plan.pitch * CHANNELS;
  if (plan.piece == 16) copy_rows<uint4>(from, stride, rows, length, pitch, to);
  else if (plan.piece == 4) copy_rows<unsigned>(from, stride, rows, length, pitch, to);
  else copy_rows<Pixel>(from, stride, rows, length, pitch, to);
}

// Whether all these pixels are float32 that stand for some k / 255. All threads ask, and are told the same.
__device__ inline bool are_levels(const Band& band, int rows, int cols) {
  __shared__ int others;
  if (threadIdx.x == 0) others = 0;
  __syncthreads();
  for (int y = 0; y < rows; ++y)
    for (int i = threadIdx.x; i < cols * CHANNELS; i += blockDim.x) {
      const float x = band.at(band.top + y, band.left)[i];
      if (!(fabsf(fmaf(x, 255, -rintf(x * 255))) < 3e-5f)) others = 1;  // fma: the product is not rounded
    }
  __syncthreads();
  return !others;
}

// The pixels for `rows` rows of the tile's cells, from `first` on. All threads call it, and none reads them before.
__device__ inline Band fetch(const Pixel* image, const Plan& plan, const Tile& tile, int first, int rows,
                             Pixel* memory, bool* of_levels) {
  const int top = max((tile.row + first) * plan.cell_rows - 1, 0);
  const int bottom = min((tile.row + first + rows) * plan.cell_rows + 1, plan.height);
  const int left = max(tile.col * plan.cell_cols - plan.margin, 0);
  const int right = min((tile.col + tile.across) * plan.cell_cols + plan.margin, plan.width);
  const Pixel* from = image + (size_t(top) * plan.width + left) * CHANNELS;
  const Band band{STAGED ? memory : from, plan.height, plan.width, top, left, STAGED ? plan.pitch : plan.width};
  if (STAGED) copy(from, size_t(plan.width) * CHANNELS, bottom - top, (right - left) * CHANNELS, plan, memory);
  __syncthreads();
  *of_levels = sizeof(Pixel) == 4 && (CHANNELS > 1 || EXACT != HARDLY) && are_levels(band, bottom - top, right - left);
  return band;
}

// --- Cells and blocks -------------------------------------------------------------------------------------------------

// The cells of a tile, `across` in a row: their histograms, and the sums of their numbers or squares, as the norm wants.
struct Cells {
  float *histograms, *sums;
  int across, orientations;
  bool squares;

  // Adds the votes of `count` runs from `first` on; the first cell that has `runs` of them is number `offset`.
  __device__ void add(const float* votes, int first, int count, int runs, int offset, float scale) const {
    for (int cell = first / runs + threadIdx.x; cell * runs < first + count; cell += blockDim.x) {
      const int begin = max(cell * runs, first), end = min((cell + 1) * runs, first + count);
      float* histogram = histograms + (offset + cell) * orientations;
      for (int run = begin; run < end; ++run)
        for (int k = 0; k < orientations; ++k)
          histogram[k] = fmaf(votes[k * blockDim.x + run - first], scale, run == cell * runs ? 0 : histogram[k]);
      float total = 0;
      for (int k = 0; k < orientations; ++k) total = fmaf(histogram[k], squares ? histogram[k] : 1, total);
      sums[offset + cell] = total;
    }
  }
};

// Votes for `rows` rows of the tile's cells, from `first_row` on.
__device__ inline void fill(const Cells& cells, int first_row, int rows, const Plan& plan, const Tile& tile,
                            const Band& band, const Exact& exact, float* cotangents, float* votes) {
  const int runs = plan.cell_cols / RUN, runs_across = tile.across * runs, n_runs = rows * runs_across;
  const float scale = 1 / (exact.white * plan.cell_rows * plan.cell_cols), per_row = 1.f / runs_across;
  float* own = votes + threadIdx.x;
  for (int first = 0; first < n_runs; first += blockDim.x) {
    const int run = first + threadIdx.x, row = quotient(run, per_row), col = run - row * runs_across;
    const int y = (tile.row + first_row + row) * plan.cell_rows, x = tile.col * plan.cell_cols + col * RUN;
    for (int k = 0; k < exact.orientations; ++k) own[k * blockDim.x] = 0;
    if (run < n_runs) vote(band, exact, cotangents, x, y, y + plan.cell_rows, own);
    __syncthreads();
    cells.add(votes, first, min(int(blockDim.x), n_runs - first), runs, first_row * tile.across, scale);
    __syncthreads();
  }
}

// What the numbers of a block are multiplied with, before and after they are clipped.
struct Factors {
  float first, again;
};

struct Blocks {
  Cells cells;
  int rows, cols, cell_rows, cell_cols, norm;  // so many blocks of so many cells
  Factors* factors;

  __device__ int run() const { return cell_cols * cells.orientations; }

  __device__ Factors factors_of(int corner) const {
    constexpr float eps = 1e-5f;
    float total = 0, clipped = 0;
    for (int i = 0; i < cell_rows; ++i)
      for (int j = 0; j < cell_cols; ++j) total += cells.sums[corner + i * cells.across + j];
    const float first = 1 / (cells.squares ? sqrtf(total + eps * eps) : total + eps);
    for (int i = 0; norm == L2_HYS && i < cell_rows; ++i) {
      const float* numbers = cells.histograms + (corner + i * cells.across) * cells.orientations;
      for (int k = 0; k < run(); ++k) {
        const float v = fminf(numbers[k] * first, 0.2f);
        clipped = fmaf(v, v, clipped);
      }
    }
    return {first, norm == L2_HYS ? 1 / sqrtf(clipped + eps * eps) : 1};
  }

  __device__ void find_factors() const {
    const float per_row = 1.f / cols;
    for (int block = threadIdx.x; block < rows * cols; block += blockDim.x)
      factors[block] = factors_of(block + quotient(block, per_row) * (cells.across - cols));
  }

  __device__ float normalised(float number, const Factors& by) const {
    const float v = fminf(number * by.first, norm == L2_HYS ? 0.2f : 3e38f) * by.again;
    return norm == L1_SQRT ? sqrtf(v) : v;
  }

  // Writes row by row, WIDE numbers at a time; the image's rows of blocks lie `stride` apart.
  template <int WIDE>
  __device__ void write(float* features, int stride) const {
    struct alignas(4 * WIDE) Some {
      float at[WIDE];
    };
    const int size = cell_rows * run(), count = run() / WIDE;
    const float per_run = 1.f / count;
    for (int row = 0; row < rows; ++row, features += stride)
      for (int cell_row = 0; cell_row < cell_rows; ++cell_row) {
        const float* numbers = cells.histograms + (row + cell_row) * cells.across * cells.orientations;
        for (int i = threadIdx.x; i < cols * count; i += blockDim.x) {
          const int block = quotient(i, per_run), within = (i - block * count) * WIDE;
          const Factors by = factors[row * cols + block];
          Some some;
          for (int k = 0; k < WIDE; ++k) some.at[k] = normalised(numbers[block * cells.orientations + within + k], by);
          *(Some*)(features + block * size + cell_row * run() + within) = some;
        }
      }
  }
};

// Where a tile's cells are too many for shared memory, each tile has `in_workspace` numbers of the workspace.
extern "C" __global__ void __launch_bounds__(128, 6)
    hog(const Pixel* images, int height, int width, int cell_rows, int cell_cols, int block_rows, int block_cols,
        int down, int across, int tiles_down, int tiles_across, int tile_rows, int tile_cols, int band_rows, int margin,
        int pitch, int room, int piece, int orientations, int norm, int root, const double* levels,
        const double* thresholds, int in_workspace, float* workspace, float* features) {
  extern __shared__ uint4 memory[];
  const Plan plan{height,    width,     cell_rows,  cell_cols,    block_rows, block_cols, down,   across, tiles_down,
                  tiles_across, tile_rows, tile_cols, band_rows, margin,     pitch,      room,   piece};
  const Tile tile(plan, blockIdx.x);

  Factors* const factors = (Factors*)(memory + room / 16);
  float* const cotangents = (float*)(factors + tile.rows * tile.cols);
  float* const votes = cotangents + orientations + 1;
  float* const sums = in_workspace ? workspace + size_t(blockIdx.x) * in_workspace : votes + orientations * blockDim.x;
  const Cells cells{sums + tile.down * tile.across, sums, tile.across, orientations, norm == L2 || norm == L2_HYS};
  const Blocks blocks{cells, tile.rows, tile.cols, block_rows, block_cols, norm, factors};

  for (int k = threadIdx.x; k <= orientations; k += blockDim.x) {
    const float threshold = float(thresholds[2 * (orientations + k % orientations)]);
    cotangents[k] = k == 0 ? 3e38f : k == orientations ? -3e38f : threshold;  // always reached, and never
  }
  const Pixel* image = images + size_t(tile.image) * height * width * CHANNELS;
  Exact exact{levels, thresholds, orientations, root, sizeof(Pixel) == 1 ? 255.f : 1.f, false};
  for (int first = 0; first < tile.down; first += band_rows) {
    const int rows = min(band_rows, tile.down - first);
    const Band band = fetch(image, plan, tile, first, rows, (Pixel*)memory, &exact.of_levels);
    fill(cells, first, rows, plan, tile, band, exact, cotangents, votes);
  }
  blocks.find_factors();
  __syncthreads();
  const int size = block_rows * block_cols * orientations;
  features += ((size_t(tile.image) * down + tile.row) * across + tile.col) * size;
  if (blocks.run() % 2 == 0) blocks.write<2>(features, across * size);
  else blocks.write<1>(features, across * size);
}
