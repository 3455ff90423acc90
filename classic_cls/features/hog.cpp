// Histograms of oriented gradients of a batch of images, with scikit-image's numbers.
//
// Conventions: gx = right - left, gy = below - above, both 0 at the border (rows and columns are reflected there).
// Bin k of n holds the angles atan2(gy, gx) mod 180 degrees in [180 k / n, 180 (k + 1) / n).
// Output per image: (block row, block column, cell row, cell column, orientation).
//
// No arctangent: with gy made positive, the angle is at least 180 k / n degrees exactly where gx <= cot(pi k / n) gy.
//
// Two precisions. `float` serves the usual case. `double` serves pictures where rounding decides a bin: colour (two
// channels equally strong), 45 degrees (a threshold whenever 4 divides the number of orientations), square roots, and
// L1-sqrt, which magnifies tiny votes. There uint8 x is read as the double x / 255, as scikit-image would read it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <string>
#include <vector>

#include "_simd.h"

namespace nb = nanobind;
using simd::Float4;
using simd::kLanes;
using simd::Vec;

namespace {

enum class BlockNorm { L1, L1Sqrt, L2, L2Hys };

struct Geometry {
  long height, width, channels;
  int orientations, cell_rows, cell_cols, block_rows, block_cols;
  BlockNorm norm;
  bool transform_sqrt;

  long cells_down() const { return height / cell_rows; }
  long cells_across() const { return width / cell_cols; }
  long blocks_down() const { return cells_down() - block_rows + 1; }
  long blocks_across() const { return cells_across() - block_cols + 1; }
  long block_size() const { return long(block_rows) * block_cols * orientations; }
  long n_features() const { return blocks_down() * blocks_across() * block_size(); }
};

// A pixel may lie on a threshold to within rounding, and scikit-image's own rounding then decides. Such pixels are
// decided alike and moved clear of the threshold. 45 and 135 degrees are thresholds where 4 divides the number of
// orientations, and many pixels lie there. How far |gx| may exceed |gy|, relatively, until the arctangent (rounded, in
// degrees, mod 180) is on the other side, is one constant for gradients upward and one for downward.
struct Diagonal {
  bool right;  // 45 degrees; else 135
  double up, down;
  Diagonal(int n, bool right) : right(right), up(slack(n, true)), down(slack(n, false)) {}

  double slack(int n, bool upward) const {
    const long double quarter = 3.14159265358979323846264338327950288L / 4;
    const int k = right ? n / 4 : n / 4 * 3;
    double low = -1e-13, high = 1e-13;
    for (int i = 0; i < 60; ++i) {
      const double middle = (low + high) / 2;
      const long double steep = quarter - middle / 2, angle = right == upward ? steep : 4 * quarter - steep;
      const double degrees = double(upward ? angle : -angle) * (180 / M_PI);
      const bool reached = (degrees < 0 ? degrees + 180 : degrees) >= (180.0 / n) * k;
      (reached == right ? low : high) = middle;
    }
    return low;
  }
};

// cot(pi k / n), in two parts whose sum is good to twice the precision of G.
template <class G>
struct Thresholds {
  std::vector<G> high, low;
  Diagonal right, left;
  explicit Thresholds(int n) : high(n), low(n), right(n, true), left(n, false) {
    for (int k = 1; k < n; ++k) {
      double cot = 1 / std::tan(M_PI * k / n);
      // Exactly 90 degrees belongs to bin k = n / 2 unless 180 / n * k is rounded up.
      if (2 * k == n) cot = (180.0 / n) * k > 90 ? -1e-30 : 0;
      high[k] = G(cot);
      low[k] = G(cot - double(high[k]));
    }
  }
};

// A pixel as the precision G wants it. Where all pixels of an image are float32 that stand for some k / 255, they are
// read as that, since their rounding could decide a bin: the same picture must give the same features in either dtype.
template <class T, class G>
struct Reader {
  bool root;
  bool of_levels = false;
  void look_at(const T* image, long n) {
    const auto is_level = [](double x) { return std::fabs(x * 255 - std::nearbyint(x * 255)) < 3e-5; };
    if constexpr (std::is_same_v<T, float> && std::is_same_v<G, double>)
      of_levels = std::all_of(image, image + n, is_level);
  }
  G operator()(T value) const {
    if constexpr (std::is_same_v<G, float>) return float(value);
    const double x = of_levels ? std::nearbyint(value * 255.0) / 255 : value;
    return G(root ? std::sqrt(x) : x);
  }
};
template <>
struct Reader<uint8_t, double> {
  double table[256];
  explicit Reader(bool root) {
    for (int k = 0; k < 256; ++k) table[k] = root ? std::sqrt(k / 255.0) : k / 255.0;
  }
  void look_at(const uint8_t*, long) {}
  double operator()(uint8_t value) const { return table[value]; }
};

// The rows that one band of cells needs, as G, channel by channel, with one reflected column on either side. Pixels
// start at a vector's boundary: a load across two cache lines costs two.
template <class G>
struct Rows {
  long channels, stride;
  std::vector<Vec<G>> buffer;
  Rows(const Geometry& g)
      : channels(g.channels),
        stride(simd::round_up(g.width + 1, kLanes<G>) + kLanes<G>),
        buffer(((g.cell_rows + 2) * g.channels * stride) / kLanes<G>) {}

  G* pixels(long r, long c) { return (G*)buffer.data() + (r * channels + c) * stride + kLanes<G>; }
  const G* pixels(long r, long c) const { return (const G*)buffer.data() + (r * channels + c) * stride + kLanes<G>; }

  template <class Read, class T>
  void fill(const Read& read, const T* image, const Geometry& g, long first_row) {
    for (long r = 0; r < g.cell_rows + 2; ++r) {
      long y = first_row + r - 1;
      if (y < 0) y = std::min(1L, g.height - 1);
      if (y >= g.height) y = std::max(g.height - 2, 0L);
      const T* source = image + y * g.width * channels;
      for (long c = 0; c < channels; ++c) {
        G* to = pixels(r, c);
        if (channels == 1)
          for (long x = 0; x < g.width; ++x) to[x] = read(source[x]);
        else
          for (long x = 0; x < g.width; ++x) to[x] = read(source[x * channels + c]);
        to[-1] = to[std::min(1L, g.width - 1)];
        to[g.width] = to[std::max(g.width - 2, 0L)];
      }
    }
  }
};

template <class G>
struct Gradient {
  Vec<G> x, y, squared;
};

template <class G>
inline Gradient<G> gradient(const Rows<G>& rows, long r, long c, long x) {
  Gradient<G> g;
  g.x = simd::load<Vec<G>>(rows.pixels(r, c) + x + 1) - simd::load<Vec<G>>(rows.pixels(r, c) + x - 1);
  g.y = simd::load<Vec<G>>(rows.pixels(r + 1, c) + x) - simd::load<Vec<G>>(rows.pixels(r - 1, c) + x);
  g.squared = g.x * g.x + g.y * g.y;
  return g;
}

// Where two channels are equally strong to within rounding, scikit-image's rounding decides: it compares hypotenuses.
template <class G, class Mask>
inline Mask stronger(const Gradient<G>& g, const Gradient<G>& best) {
  Mask better = g.squared > best.squared;
  const Vec<G> gap = g.squared - best.squared, size = g.squared * G(1e-15);
  const Mask near = (gap <= size) & (-gap <= size) & ((g.x != best.x) | (g.y != best.y));
  if (simd::any(near))
    for (int i = 0; i < kLanes<G>; ++i)
      if (near[i]) better[i] = std::hypot(g.x[i], g.y[i]) > std::hypot(best.x[i], best.y[i]) ? -1 : 0;
  return better;
}

// The gradient of the strongest channel, the first of equals.
template <class G, bool Color>
inline Gradient<G> strongest(const Rows<G>& rows, long r, long x) {
  Gradient<G> best = gradient(rows, r, 0, x);
  if constexpr (Color)
    for (long c = 1; c < rows.channels; ++c) {
      const Gradient<G> g = gradient(rows, r, c, x);
      const auto better = stronger<G, decltype(g.x > g.x)>(g, best);
      best.x = better ? g.x : best.x;
      best.y = better ? g.y : best.y;
      best.squared = better ? g.squared : best.squared;
    }
  return best;
}

// Turns the gradient by 180 degrees where that makes gy positive; where gy is 0, makes gx positive (angle 0).
template <class G>
inline void fold(Gradient<G>& g) {
  using Bits = std::conditional_t<sizeof(G) == 4, Vec<int32_t>, Vec<int64_t>>;
  const Bits minus = Bits{} + std::conditional_t<sizeof(G) == 4, int32_t, int64_t>(sizeof(G) == 4 ? INT32_MIN : INT64_MIN);
  const Bits flip = (g.y == Vec<G>{} ? (Bits)g.x : (Bits)g.y) & minus;
  g.x = (Vec<G>)((Bits)g.x ^ flip);
  g.y = (Vec<G>)((Bits)g.y & ~minus);
}

inline void settle_diagonal(Gradient<double>& g, const Vec<double>& original_y, const Diagonal& diagonal) {
  const Vec<double> excess = (diagonal.right ? g.x : -g.x) - g.y, zero{};
  const auto near = ((excess < 0 ? -excess : excess) <= g.y * 1e-13) & (g.y > 0);
  const auto beyond = excess > (original_y > 0 ? zero + diagonal.up : zero + diagonal.down) * g.y;
  const Vec<double> moved = (beyond ? zero + (1 + 1e-9) : zero + (1 - 1e-9)) * g.y;
  g.x = near ? (diagonal.right ? moved : -moved) : g.x;
}

// Any other threshold can be hit through square roots alone (without them its tangent is irrational). That is rare:
// these pixels are asked for their arctangent.
inline void settle_roots(Gradient<double>& g, const Vec<double>& original_y, const Thresholds<double>& cot, int n) {
  for (int k = 1; k < n; ++k) {
    const Vec<double> off = g.x - cot.high[k] * g.y;
    const auto near = ((off < 0 ? -off : off) <= g.y * 1e-14) & (g.y > 0);
    if (4 * k % n == 0 || !simd::any(near)) continue;
    for (int i = 0; i < kLanes<double>; ++i)
      if (near[i]) {
        const double y = original_y[i], x = y < 0 ? -g.x[i] : g.x[i], angle = std::atan2(y, x) * (180 / M_PI);
        const bool reached = (angle < 0 ? angle + 180 : angle) >= (180.0 / n) * k;
        g.x[i] = (cot.high[k] + (reached ? -1e-9 : 1e-9)) * g.y[i];
      }
  }
}

// Adds a band's magnitudes, column by column: sums[k][x] over the pixels in bin k. total[k] counts the angles of at
// least 180 k / n degrees, so a bin is the difference of two neighbours.
// N is the number of orientations where it is known when compiling (its accumulators then stay in registers), else 0.
// Refine compares with twice the precision: float32 pixels, unlike uint8, can lie arbitrarily close to a threshold.
template <class G, int N, bool Color, bool Refine>
void vote(const Rows<G>& rows, const Geometry& geometry, const Thresholds<G>& cot, std::vector<Vec<G>>& scratch,
          G* sums, long stride) {
  const int n = N ? N : geometry.orientations;
  Vec<G> fixed[N ? N : 1];
  Vec<G>* total = N ? fixed : scratch.data();
  for (long x = 0; x < geometry.width; x += kLanes<G>) {
    for (int k = 0; k < n; ++k) total[k] = Vec<G>{};
    for (long r = 1; r <= geometry.cell_rows; ++r) {
      Gradient<G> g = strongest<G, Color>(rows, r, x);
      const Vec<G> magnitude = simd::sqrt(g.squared);
      const Vec<G> original_y = g.y;
      fold(g);
      if constexpr (std::is_same_v<G, double>) {
        if (n % 4 == 0) settle_diagonal(g, original_y, cot.right), settle_diagonal(g, original_y, cot.left);
        if (geometry.transform_sqrt) settle_roots(g, original_y, cot, n);
      }
      total[0] += magnitude;
#pragma GCC unroll 16
      for (int k = 1; k < n; ++k) {
        Vec<G> side = simd::fma(simd::splat<Vec<G>>(-cot.high[k]), g.y, g.x);
        if constexpr (Refine) side = simd::fma(simd::splat<Vec<G>>(-cot.low[k]), g.y, side);
        total[k] = side <= Vec<G>{} ? total[k] + magnitude : total[k];
      }
    }
    for (int k = 0; k < n; ++k) simd::store(sums + k * stride + x, k + 1 < n ? total[k] - total[k + 1] : total[k]);
  }
}

// The cells of an image: histograms (down, across, orientation), and each cell's share of its blocks' norms.
struct Cells {
  std::vector<float> histogram, mass;
  explicit Cells(const Geometry& g)
      : histogram(g.cells_down() * g.cells_across() * g.orientations + simd::kBytes),
        mass(g.cells_down() * g.cells_across()) {}
};

// Sums the columns four by four: quads[x / 4][k]. Reads whole vectors of columns, four bins at a time.
void sum_quads(const float* sums, long stride, int n, float* quads) {
  const long bins = simd::round_up(n, 4);
  for (long x = 0; x < stride; x += kLanes<float>)
    for (int k = 0; k < n; k += 4) {
      const float* first = sums + k * stride + x;
      const auto low = simd::pair_sums(simd::load(first), simd::load(first + stride));
      const auto high = simd::pair_sums(simd::load(first + 2 * stride), simd::load(first + 3 * stride));
      const auto four = simd::pair_sums(low, high);
      Float4 part[kLanes<float> / 4];
      __builtin_memcpy(part, &four, sizeof four);
      for (int i = 0; i < kLanes<float> / 4; ++i) simd::store(quads + (x / 4 + i) * bins + k, part[i]);
    }
}

// From a band's column sums to the mean histograms of its row of cells. Rows of `sums` from `orientations` on are 0.
template <class G>
void gather_cells(const G* sums, long stride, const Geometry& g, G scale, std::vector<float>& quads, Cells& cells,
                  long cell_row) {
  const int n = g.orientations;
  const bool squares = g.norm == BlockNorm::L2 || g.norm == BlockNorm::L2Hys;
  const bool by_quads = std::is_same_v<G, float> && g.cell_cols % 4 == 0;
  const long bins = simd::round_up(n, 4);
  if (by_quads) sum_quads((const float*)sums, stride, n, quads.data());
  for (long j = 0; j < g.cells_across(); ++j) {
    const long cell = cell_row * g.cells_across() + j;
    Float4 mass{};
    for (int k = 0; k < n; k += 4) {
      Float4 four{};
      if (by_quads) {
        const float* quad = quads.data() + j * (g.cell_cols / 4) * bins + k;
        for (int q = 0; q < g.cell_cols / 4; ++q) four += simd::load<Float4>(quad + q * bins);
        four *= float(scale);
      } else {
        for (int i = 0; i < std::min(4, n - k); ++i) {
          const G* first = sums + (k + i) * stride + j * g.cell_cols;
          G total = 0;
          for (int x = 0; x < g.cell_cols; ++x) total += first[x];
          four[i] = float(total * scale);
        }
      }
      mass += squares ? four * four : four;
      simd::store(&cells.histogram[cell * n + k], four);  // may write into the next cell, which comes next
    }
    cells.mass[cell] = (mass[0] + mass[1]) + (mass[2] + mass[3]);
  }
}

constexpr float kEps = 1e-5f;

// One over the norm of every block in a row of blocks.
void block_factors(const Cells& cells, const Geometry& g, long block_row, float* factor) {
  const long across = g.blocks_across();
  std::fill_n(factor, across, 0.f);
  for (long r = 0; r < g.block_rows; ++r)
    for (long c = 0; c < g.block_cols; ++c) {
      const float* mass = cells.mass.data() + (block_row + r) * g.cells_across() + c;
      for (long j = 0; j < across; ++j) factor[j] += mass[j];
    }
  const bool squares = g.norm == BlockNorm::L2 || g.norm == BlockNorm::L2Hys;
  for (long j = 0; j < across; ++j)
    factor[j] = 1 / (squares ? std::sqrt(factor[j] + kEps * kEps) : factor[j] + kEps);
}

// Blocks are short and start anywhere: wider vectors than these would straddle cache lines at every step.
using Part = simd::VecOf<float, std::min(32, simd::kBytes)>::type;
constexpr int kPart = sizeof(Part) / sizeof(float);

// Writes a block of Rows runs of Run numbers, normalised, and up to a vector's width more. Its size is known when
// compiling, so that the block stays in registers between its two normalisations.
template <int Rows, int Run>
inline void write_block(const float* cells, long row_stride, float factor, bool clip, float* out) {
  constexpr int parts = (Run + kPart - 1) / kPart;
  Part v[Rows * parts], squares{};
  for (int i = 0; i < Rows * parts; ++i) {
    const int offset = i % parts * kPart;
    v[i] = simd::load<Part>(cells + i / parts * row_stride + offset) * factor;
    if (!clip) continue;
    const Part top = simd::splat<Part>(0.2f);
    v[i] = v[i] < top ? v[i] : top;
    const Part counted = simd::first_lanes(v[i], std::min(kPart, Run - offset), Part{});
    squares += counted * counted;
  }
  const float again = clip ? 1 / std::sqrt(simd::sum(squares) + kEps * kEps) : 1;
  for (int i = 0; i < Rows * parts; ++i) simd::store(out + i / parts * Run + i % parts * kPart, v[i] * again);
}

// The same for a block of any size.
void write_block(const float* cells, long row_stride, long rows, long run, float factor, bool clip, float* out) {
  const Part top = simd::splat<Part>(clip ? 0.2f : INFINITY);
  Part squares{};
  for (long r = 0; r < rows; ++r)
    for (long x = 0; x < run; x += kPart) {
      Part v = simd::load<Part>(cells + r * row_stride + x) * factor;
      v = v < top ? v : top;
      simd::store(out + r * run + x, v);
      v = simd::first_lanes(v, int(std::min<long>(kPart, run - x)), Part{});
      squares += v * v;
    }
  if (!clip) return;
  const float again = 1 / std::sqrt(simd::sum(squares) + kEps * kEps);
  for (long i = 0; i < rows * run; ++i) out[i] *= again;
}

// Copies each block's cells together, normalised, from left to right. `out` needs a vector's width of room behind it.
void write_blocks(const Cells& cells, const Geometry& g, float* factor, float* out) {
  const long run = long(g.block_cols) * g.orientations, row_stride = g.cells_across() * g.orientations;
  const bool two = g.block_rows == 2 && run == 18, three = g.block_rows == 3 && run == 27;
  const bool clip = g.norm == BlockNorm::L2Hys;
  for (long i = 0; i < g.blocks_down(); ++i) {
    block_factors(cells, g, i, factor);
    for (long j = 0; j < g.blocks_across(); ++j, out += g.block_size()) {
      const float* first = &cells.histogram[i * row_stride + j * g.orientations];
      if (two) write_block<2, 18>(first, row_stride, factor[j], clip, out);
      else if (three) write_block<3, 27>(first, row_stride, factor[j], clip, out);
      else write_block(first, row_stride, g.block_rows, run, factor[j], clip, out);
    }
  }
}

template <class T, class G, int N, bool Color>
void describe(const T* images, long n_images, const Geometry& g, float* out) {
  constexpr bool refine = std::is_same_v<T, float> && std::is_same_v<G, float>;
  constexpr bool bytes = std::is_same_v<T, uint8_t> && std::is_same_v<G, float>;
  const G scale = G(1.0 / (double(g.cell_rows) * g.cell_cols * (bytes ? 255 : 1)));
  const long stride = simd::round_up(g.width, kLanes<G>), n_features = g.n_features();
  const Thresholds<G> cot(g.orientations);
  Reader<T, G> read{g.transform_sqrt};
  Rows<G> rows(g);
  Cells cells(g);
  std::vector<Vec<G>> scratch(g.orientations + 1);
  std::vector<G> sums(simd::round_up(g.orientations, 4) * stride);
  std::vector<float> quads(stride / 4 * simd::round_up(g.orientations, 4));
  std::vector<float> factor(g.blocks_across()), last(n_features + simd::kBytes);
  for (long m = 0; m < n_images; ++m) {
    const long size = g.height * g.width * g.channels;
    const T* image = images + m * size;
    read.look_at(image, size);
    for (long i = 0; i < g.cells_down(); ++i) {
      rows.fill(read, image, g, i * g.cell_rows);
      vote<G, N, Color, refine>(rows, g, cot, scratch, sums.data(), stride);
      gather_cells(sums.data(), stride, g, scale, quads, cells, i);
    }
    const bool room_behind = m + 1 < n_images && n_features >= simd::kBytes;
    float* features = room_behind ? out + m * n_features : last.data();
    write_blocks(cells, g, factor.data(), features);
    if (g.norm == BlockNorm::L1Sqrt)
      for (long i = 0; i < n_features; ++i) features[i] = std::sqrt(features[i]);
    if (!room_behind) std::copy_n(features, n_features, out + m * n_features);
  }
}

template <class T, class G, bool Color>
void describe_any(const T* images, long n_images, const Geometry& g, float* out) {
  g.orientations == 9 ? describe<T, G, 9, Color>(images, n_images, g, out)
                      : describe<T, G, 0, Color>(images, n_images, g, out);
}

BlockNorm parse_norm(const std::string& name) {
  if (name == "L1") return BlockNorm::L1;
  if (name == "L1-sqrt") return BlockNorm::L1Sqrt;
  if (name == "L2") return BlockNorm::L2;
  if (name == "L2-Hys") return BlockNorm::L2Hys;
  throw std::invalid_argument("unknown block norm");
}

template <class T>
using Images = nb::ndarray<const T, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Features = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class T>
void hog(Images<T> images, int orientations, std::pair<int, int> cell, std::pair<int, int> block,
         const std::string& norm, bool transform_sqrt, Features out) {
  const Geometry g{long(images.shape(1)), long(images.shape(2)), long(images.shape(3)),
                   orientations, cell.first, cell.second, block.first, block.second,
                   parse_norm(norm), transform_sqrt};
  if (orientations < 1 || g.cell_rows < 1 || g.cell_cols < 1 || g.block_rows < 1 || g.block_cols < 1 ||
      g.channels < 1 || g.blocks_down() < 1 || g.blocks_across() < 1 || out.shape(0) != images.shape(0) ||
      long(out.shape(1)) != g.n_features())
    throw std::invalid_argument("hog: the shapes of images, cells, blocks and out do not fit together");
  const bool careful = std::is_same_v<T, double> || (std::is_same_v<T, float> && !simd::kHasFma) ||
                       transform_sqrt || orientations % 4 == 0 || g.norm == BlockNorm::L1Sqrt;
  const long n = long(images.shape(0));
  nb::gil_scoped_release release;
  if (g.channels > 1)
    describe_any<T, double, true>(images.data(), n, g, out.data());
  else if (careful)
    describe_any<T, double, false>(images.data(), n, g, out.data());
  else if constexpr (!std::is_same_v<T, double>)
    describe_any<T, float, false>(images.data(), n, g, out.data());
}

template <class T>
void bind_for(nb::module_& m) {
  m.def("hog", &hog<T>, nb::arg("images").noconvert(), nb::arg("orientations"), nb::arg("pixels_per_cell"),
        nb::arg("cells_per_block"), nb::arg("block_norm"), nb::arg("transform_sqrt"), nb::arg("out").noconvert());
}

}  // namespace

void bind_hog(nb::module_& m) {
  bind_for<uint8_t>(m);
  bind_for<float>(m);
  bind_for<double>(m);
}
