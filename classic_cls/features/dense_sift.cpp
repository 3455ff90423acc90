// Dense SIFT of a batch of images: VLFeat's vl_dsift with a flat window. RGB is read as gray.
//
// Conventions: gx = right - left, gy = below - above, one-sided at the border; direction o of 8 is
// atan2(gy, gx) = 45 o degrees, so with y pointing down directions turn clockwise. Descriptor (i, j) has its
// 4 x 4 bins centred on the pixels (i * step + {0, 1, 2, 3} * bin, j * step + {0, 1, 2, 3} * bin).
// Output per image: (descriptor row, descriptor column, bin row, bin column, direction).
//
// How: all bins lie on the grid of g = gcd(step, bin) pixels, the nodes, and a triangle of half-width bin is
// a sum of triangles of half-width g. So a band of g rows of votes adds to two rows of nodes, above and below
// it; a row of nodes is then filtered along x, and along y only where g < bin. Rows are stored with every
// g-th pixel together: neighbouring lanes are neighbouring nodes, and both gradient and filter along x are
// plain vector code.
//
// A descriptor is 4 runs, one per row of bins, of 4 x 8 numbers, weighted by the window; its norm follows
// from the runs' energies. RootSIFT is the same on square roots: clipping commutes with them, and L1 becomes
// L2.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "_simd.h"

namespace nb = nanobind;
using simd::kLanes;
using Floats = simd::Vec<float>;
using Bits = simd::Vec<int32_t>;

namespace {

constexpr int kDirections = 8, kBins = 4, kRun = kBins * kDirections, kDescriptor = kBins * kRun;
constexpr long kVec = kLanes<float>;

long floor_div(long a, long b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

struct Geometry {
  long height, width, channels, step, bin;
  long rows = (height - 1 - 3 * bin) / step + 1, cols = (width - 1 - 3 * bin) / step + 1;  // of descriptors
  long g = std::gcd(step, bin);
  long reach = bin / g;  // a bin's half-width, in nodes
  long hop = step / g;   // from descriptor to descriptor, in nodes
  long nodes_down = (rows - 1) * hop + 3 * reach + 1, nodes_across = (cols - 1) * hop + 3 * reach + 1;
  // Columns of g pixels that the filter along x touches; `margin` of them lie left of the image.
  long margin = (bin + g - 2) / g, columns = margin + nodes_across + (bin - 1) / g;
  // Numbers from one row, or one direction's plane of a row, to the next.
  long pixel_stride = simd::round_up((g + 2) * columns, kVec) + kVec;
  long vote_stride = simd::round_up(g * columns, kVec) + kVec;
  long node_stride = simd::round_up(nodes_across, kVec);
};

// Rows of a fixed size, of which (at least) the last few are remembered.
class Ring {
 public:
  Ring(long rows, long stride) : stride_(stride) {
    while (mask_ + 1 < rows) mask_ = 2 * mask_ + 1;
    buffer_.resize((mask_ + 1) * stride / kVec);
  }
  float* operator[](long i) { return (float*)buffer_.data() + (i & mask_) * stride_; }

 private:
  long stride_, mask_ = 0;
  std::vector<Floats> buffer_;
};

// Pixels on the scale 0 to 255, which float32 x / 255 meets exactly. In a row, plane d of -1 .. g holds the
// pixels d, g + d, 2 g + d, ... (column c at c + margin). Beyond the border a pixel continues the slope of
// the two within, so that a central difference is one-sided there.
template <class T>
class Pixels {
 public:
  explicit Pixels(const Geometry& geometry)
      : geo_(geometry), rows_(geometry.g + 2, geometry.pixel_stride), line_(geometry.width) {}

  void start(const T* image) {
    image_ = image;
    read(0);
    read(1);
    extrapolate(-1, 0, 1);
    next_ = 2;
  }
  void read_up_to(long y) {
    for (; next_ <= y; ++next_) next_ < geo_.height ? read(next_) : extrapolate(next_, next_ - 1, next_ - 2);
  }
  const float* row(long y) { return rows_[y]; }

 private:
  void read(long y) {
    const long g = geo_.g, stride = geo_.columns, width = geo_.width, columns = stride - geo_.margin;
    const T* source = image_ + y * width * geo_.channels;
    if (geo_.channels == 1)
      for (long x = 0; x < width; ++x) line_[x] = value(source[x]);
    else
      for (long x = 0; x < width; ++x, source += 3)
        line_[x] = 0.299f * value(source[0]) + 0.587f * value(source[1]) + 0.114f * value(source[2]);
    float* plane = rows_[y] + stride + geo_.margin;  // plane[d * stride + c] is the pixel c * g + d
    const long whole = std::min(width / g, columns);
    spread(plane, whole);
    if (whole < columns)
      for (long d = 0; d < width % g; ++d) plane[d * stride + whole] = line_[whole * g + d];
    std::copy_n(plane + (g - 1) * stride - 1, columns, plane - stride);
    std::copy_n(plane + 1, columns - 1, plane + g * stride);
    if (columns * g < width) plane[g * stride + columns - 1] = line_[columns * g];

    plane[-stride] = 2 * line_[0] - line_[1];
    const long c = (width - 1) / g, d = (width - 1) % g;
    if (c < columns) plane[(d + 1) * stride + c] = 2 * line_[width - 1] - line_[width - 2];
  }

  // Deals the line's first `count` columns of g pixels out to the planes.
  void spread(float* plane, long count) {
    const long g = geo_.g, stride = geo_.columns;
    long c = 0;
    for (; g % 4 == 0 && c + 4 <= count; c += 4)
      for (long d = 0; d < g; d += 4) {
        simd::Float4 r[4];
        for (long i = 0; i < 4; ++i) r[i] = simd::load<simd::Float4>(&line_[(c + i) * g + d]);
        simd::transpose(r);
        for (long i = 0; i < 4; ++i) simd::store(plane + (d + i) * stride + c, r[i]);
      }
    for (; c < count; ++c)
      for (long d = 0; d < g; ++d) plane[d * stride + c] = line_[c * g + d];
  }

  void extrapolate(long y, long near, long far) {
    float* to = rows_[y];
    const float *a = rows_[near], *b = rows_[far];
    for (long p = 0; p < geo_.pixel_stride; ++p) to[p] = 2 * a[p] - b[p];
  }

  static float value(uint8_t x) { return x; }
  static float value(float x) { return x * 255; }

  const Geometry& geo_;
  const T* image_ = nullptr;
  long next_ = 0;
  Ring rows_;
  std::vector<float> line_;
};

struct Votes {
  Floats direction[kDirections];
};

inline Floats keep(Floats v, Bits mask) { return (Floats)((Bits)v & mask); }
inline Floats drop(Floats v, Bits mask) { return (Floats)((Bits)v & ~mask); }

// Shares the gradient's magnitude between the nearest multiple of 90 degrees and the nearest odd one of 45.
inline Votes share(Floats gx, Floats gy) {
  constexpr float tiny = 1e-30f;
  const Floats ax = simd::abs(gx), ay = simd::abs(gy);
  const Floats magnitude = simd::sqrt(simd::fma(gx, gx, gy * gy));
  const Floats t = simd::min(ax, ay) / simd::max(simd::max(ax, ay), simd::splat<Floats>(tiny)), s = t * t;
  // atan(t) / 45 degrees on 0 .. 1, to 3.4e-7, and exact at both ends.
  Floats q = simd::splat<Floats>(-0.00848296470940113f);
  for (float c : {0.03373689576983452f, -0.06700018793344498f, 0.10114569216966629f, -0.15096591413021088f,
                  0.2732343077659607f})
    q = simd::fma(q, s, simd::splat<Floats>(c));
  const Floats diagonal = magnitude * simd::fma(t - t * s, q, t), axis = magnitude - diagonal;

  const Bits left = (Bits)gx >> 31, up = (Bits)gy >> 31, flat = (Bits)(ay - ax) >> 31;
  const Floats along_x = keep(axis, flat), along_y = drop(axis, flat);
  const Floats to_right = drop(diagonal, left), to_left = keep(diagonal, left);
  return {drop(along_x, left), drop(to_right, up), drop(along_y, up), drop(to_left, up),
          keep(along_x, left), keep(to_left, up),  keep(along_y, up), keep(to_right, up)};
}

// One row of a band, and how much of it goes to the nodes above (falling) and below (rising) the band.
struct BandRow {
  const float *above, *here, *below;
  float fall, rise;
};

// The votes of a band of g rows, summed into rows of nodes; node rows come in order.
template <class T>
class NodeRows {
 public:
  explicit NodeRows(const Geometry& geometry)
      : geo_(geometry),
        pixels_(geometry),
        votes_(kDirections * geometry.vote_stride / kVec),
        carry_(votes_.size()),
        nodes_(2 * geometry.reach - 1, kDirections * geometry.node_stride) {
    const long g = geo_.g, stride = geo_.columns, width = geo_.width;
    for (long e = 1 - geo_.bin; e < geo_.bin; ++e) {
      taps_.push_back({position(e), float(1 - std::fabs(double(e)) / geo_.bin)});
    }
    for (long x = -geo_.margin * g; x < (stride - geo_.margin) * g; ++x)
      if (x < 0 || (x >= width && (width - 1) / g < stride - geo_.margin))
        beyond_.push_back({position(x), position(std::clamp(x, 0L, width - 1))});
  }

  void start(const T* image) {
    pixels_.start(image);
    sum_band(-geo_.reach);
  }

  // Row m of nodes: planes of the 8 directions, filtered along x.
  const float* next(long m) {
    sum_band(m);
    const long stride = geo_.vote_stride;
    float* votes = (float*)votes_.data();
    for (long k = 0; k < kDirections; ++k)
      for (const auto& [to, from] : beyond_) votes[k * stride + to] = votes[k * stride + from];
    float* out = nodes_[m];
    for (long j = 0; j < geo_.node_stride; j += kVec) {
      Floats sum[kDirections] = {};
      for (const Tap& tap : taps_) {
        const Floats weight = simd::splat<Floats>(tap.weight);
        for (long k = 0; k < kDirections; ++k)
          sum[k] = simd::fma(weight, simd::load(votes + k * stride + tap.offset + j), sum[k]);
      }
      for (long k = 0; k < kDirections; ++k) simd::store(out + k * geo_.node_stride + j, sum[k]);
    }
    return out;
  }

  // Row i of bins, centred on row i of nodes, once `next` has given the reach - 1 rows after it.
  const float* bins(long i, float* out) {
    if (geo_.reach == 1) return nodes_[i];
    for (long x = 0; x < kDirections * geo_.node_stride; x += kVec) {
      Floats sum{};
      for (long k = 1 - geo_.reach; k < geo_.reach; ++k) {
        const float weight = 1 - float(std::labs(k)) / geo_.reach;
        sum = simd::fma(simd::splat<Floats>(weight), simd::load(nodes_[i + k] + x), sum);
      }
      simd::store(out + x, sum);
    }
    return out;
  }

 private:
  struct Tap {
    long offset;
    float weight;
  };

  long position(long x) const {
    const long c = floor_div(x, geo_.g);
    return (x - c * geo_.g) * geo_.columns + geo_.margin + c;
  }

  // Rows beyond the border repeat the votes of the last row within.
  void list_rows(long m) {
    rows_.clear();
    const long g = geo_.g, bottom = geo_.height - 1;
    pixels_.read_up_to(std::clamp(m * g + g - 1, 0L, bottom) + 1);
    long last = -1;
    for (long d = 0; d < g; ++d) {
      const long y = std::clamp(m * g + d, 0L, bottom);
      const float rise = float(d) / g;
      if (y == last) {
        rows_.back().fall += 1 - rise;
        rows_.back().rise += rise;
      } else {
        rows_.push_back({pixels_.row(y - 1), pixels_.row(y), pixels_.row(y + 1), 1 - rise, rise});
      }
      last = y;
    }
  }

  // Completes the votes of node row m, and keeps what belongs to row m + 1.
  void sum_band(long m) {
    list_rows(m);
    const long stride = geo_.vote_stride, plane = geo_.columns;
    float *votes = (float*)votes_.data(), *carry = (float*)carry_.data();
    for (long p = 0; p < geo_.g * plane; p += kVec) {
      Floats fall[kDirections], rise[kDirections];
      for (int k = 0; k < kDirections; ++k) fall[k] = simd::load(carry + k * stride + p), rise[k] = Floats{};
      for (const BandRow& row : rows_) {
        const Votes v = share(simd::load(row.here + p + 2 * plane) - simd::load(row.here + p),
                              simd::load(row.below + p + plane) - simd::load(row.above + p + plane));
        for (int k = 0; k < kDirections; ++k) {
          fall[k] = simd::fma(simd::splat<Floats>(row.fall), v.direction[k], fall[k]);
          rise[k] = simd::fma(simd::splat<Floats>(row.rise), v.direction[k], rise[k]);
        }
      }
      for (int k = 0; k < kDirections; ++k) {
        simd::store(votes + k * stride + p, fall[k]);
        simd::store(carry + k * stride + p, rise[k]);
      }
    }
  }

  const Geometry& geo_;
  Pixels<T> pixels_;
  std::vector<Floats> votes_, carry_;
  Ring nodes_;
  std::vector<Tap> taps_;
  std::vector<std::pair<long, long>> beyond_;
  std::vector<BandRow> rows_;
};

// Mean, over each of the 4 bins, of a Gaussian of 2 bins about the descriptor's centre.
std::vector<float> window(long bin) {
  std::vector<float> mean(kBins);
  for (int k = 0; k < kBins; ++k) {
    double sum = 0;
    for (long x = 1 - bin; x < bin; ++x) {
      const double z = (x + bin * (k - 1.5)) / (2.0 * bin);
      sum += std::exp(-0.5 * z * z);
    }
    mean[k] = float(sum / (2 * bin - 1));
  }
  return mean;
}

// Descriptors from rows of bins.
class Descriptors {
 public:
  Descriptors(const Geometry& geometry, float contrast_threshold, bool root)
      : geo_(geometry),
        root_(root),
        window_(window(geometry.bin)),
        // Contrast is the sum per pixel, for an image in [0, 1]; the votes here are 2 * 255 times as large.
        least_mass_(contrast_threshold * 510 * float((3 * geometry.bin + 1) * (3 * geometry.bin + 1))),
        slots_(3 * geometry.reach + 1),
        runs_(slots_, simd::round_up(geometry.cols * kRun, kVec)),
        energy_(slots_, geometry.node_stride),
        mass_(slots_, geometry.node_stride),
        nodes_(geometry.node_stride * kDirections),
        bin_energy_(geometry.node_stride + slots_ + kVec),
        bin_mass_(bin_energy_.size()),
        ceiling_(geometry.node_stride) {
    for (float w : window_) run_weight_.push_back(root ? std::sqrt(w) : w);
  }

  // Takes row i of bins, as planes of the 8 directions.
  void add(long i, const float* bins) {
    const long stride = geo_.node_stride;
    for (long j = 0; j < stride; j += kVec) {
      Floats energy{}, mass{};
      for (int k = 0; k < kDirections; ++k) {
        const Floats v = simd::load(bins + k * stride + j);
        energy = simd::fma(v, v, energy);
        mass += v;
      }
      simd::store(&bin_energy_[j], energy);
      simd::store(&bin_mass_[j], mass);
    }
    for (long j = 0; j < stride; j += kVec) {
      Floats energy{}, mass{};
      for (int b = 0; b < kBins; ++b) {
        const Floats w = simd::splat<Floats>(window_[b]);
        energy = simd::fma(w * w, simd::load(&bin_energy_[j + b * geo_.reach]), energy);
        mass = simd::fma(w, simd::load(&bin_mass_[j + b * geo_.reach]), mass);
      }
      simd::store(energy_[i] + j, energy);
      simd::store(mass_[i] + j, mass);
    }
    transpose(bins);
    lay_runs(runs_[i]);
  }

  // Writes the row of descriptors whose first row of bins is row i.
  void write(long i, float* out) {
    find_ceilings(i);
    const float* run[kBins];
    Floats weight[kBins];
    for (int b = 0; b < kBins; ++b) {
      run[b] = runs_[i + b * geo_.reach];
      weight[b] = simd::splat<Floats>(run_weight_[b]);
    }
    for (long j = 0; j < geo_.cols; ++j, out += kDescriptor) {
      const Floats ceiling = simd::splat<Floats>(ceiling_[j * geo_.hop]);
      Floats v[kDescriptor / kVec], squares{};
      for (int b = 0; b < kBins; ++b)
        for (int x = 0; x < kRun / kVec; ++x) {
          Floats& part = v[b * (kRun / kVec) + x];
          part = simd::min(weight[b] * simd::load(run[b] + j * kRun + x * kVec), ceiling);
          squares = simd::fma(part, part, squares);
        }
      const float total = simd::sum(squares), factor = total > 0 ? 1 / std::sqrt(total) : 0;
      for (int x = 0; x < kDescriptor / kVec; ++x) simd::store(out + x * kVec, v[x] * factor);
    }
  }

 private:
  using Bin = simd::VecOf<float, kDirections * sizeof(float)>::type;

  // From planes to nodes of 8 numbers; their square roots for RootSIFT.
  void transpose(const float* bins) {
    const long stride = geo_.node_stride;
    for (long j = 0; j < stride; j += 4)
      for (int k = 0; k < kDirections; k += 4) {
        simd::Float4 r[4];
        for (int i = 0; i < 4; ++i) r[i] = simd::load<simd::Float4>(bins + (k + i) * stride + j);
        simd::transpose(r);
        for (int i = 0; i < 4; ++i) simd::store(&nodes_[(j + i) * kDirections + k], r[i]);
      }
    if (root_)
      for (float* v = nodes_.data(); v < nodes_.data() + nodes_.size(); v += kVec)
        simd::store(v, simd::sqrt(simd::load(v)));
  }

  void lay_runs(float* to) {
    for (long j = 0; j < geo_.cols; ++j)
      for (int b = 0; b < kBins; ++b, to += kDirections) {
        const float* node = &nodes_[(j * geo_.hop + b * geo_.reach) * kDirections];
        simd::store(to, simd::load<Bin>(node) * run_weight_[b]);
      }
  }

  // The largest number allowed in each descriptor: 0.2 of its norm; 0 where the contrast is too low.
  void find_ceilings(long i) {
    for (long j = 0; j < geo_.node_stride; j += kVec) {
      Floats squares{}, mass{};
      for (int b = 0; b < kBins; ++b) {
        const Floats w = simd::splat<Floats>(window_[b]);
        squares = simd::fma(w * w, simd::load(energy_[i + b * geo_.reach] + j), squares);
        mass = simd::fma(w, simd::load(mass_[i + b * geo_.reach] + j), mass);
      }
      Floats ceiling = simd::sqrt(squares) * 0.2f;
      if (root_) ceiling = simd::sqrt(ceiling);
      simd::store(&ceiling_[j], mass < simd::splat<Floats>(least_mass_) ? Floats{} : ceiling);
    }
  }

  const Geometry& geo_;
  bool root_;
  std::vector<float> window_;
  float least_mass_;
  long slots_;
  Ring runs_, energy_, mass_;
  std::vector<float> nodes_, bin_energy_, bin_mass_, ceiling_, run_weight_;
};

template <class T>
void describe(const T* images, long n_images, const Geometry& g, Descriptors& descriptors, float* out,
              long out_stride) {
  NodeRows<T> nodes(g);
  std::vector<Floats> bins(kDirections * g.node_stride / kVec);
  for (long n = 0; n < n_images; ++n) {
    nodes.start(images + n * g.height * g.width * g.channels);
    float* to = out + n * out_stride;
    for (long m = 1 - g.reach; m < g.nodes_down + g.reach - 1; ++m) {
      nodes.next(m);
      const long i = m - (g.reach - 1), top = i - 3 * g.reach;
      if (i < 0) continue;
      descriptors.add(i, nodes.bins(i, (float*)bins.data()));
      if (top < 0 || top % g.hop) continue;
      descriptors.write(top, to);
      to += g.cols * kDescriptor;
    }
  }
}

template <class T>
using Images = nb::ndarray<const T, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
// Each image's descriptors lie together; from image to image there may be others between.
using Output = nb::ndarray<float, nb::ndim<3>, nb::device::cpu>;

template <class T>
void dense_sift(Images<T> images, long step, long bin_size, float contrast_threshold, bool root, Output out) {
  if (step < 1 || bin_size < 1) throw std::invalid_argument("dense_sift: step and bin_size must be positive");
  const Geometry g{long(images.shape(1)), long(images.shape(2)), long(images.shape(3)), step, bin_size};
  if ((g.channels != 1 && g.channels != 3) || g.height <= 3 * bin_size || g.width <= 3 * bin_size || out.shape(0) != images.shape(0) ||
      long(out.shape(1)) != g.rows * g.cols || out.shape(2) != kDescriptor || out.stride(1) != kDescriptor ||
      out.stride(2) != 1)
    throw std::invalid_argument("dense_sift: the shapes of images, bins and out do not fit together");
  nb::gil_scoped_release release;
  Descriptors descriptors(g, contrast_threshold, root);
  describe(images.data(), long(images.shape(0)), g, descriptors, out.data(), long(out.stride(0)));
}

template <class T>
void bind_for(nb::module_& m) {
  m.def("dense_sift", &dense_sift<T>, nb::arg("images").noconvert(), nb::arg("step"), nb::arg("bin_size"),
        nb::arg("contrast_threshold"), nb::arg("root"), nb::arg("out").noconvert());
}

}  // namespace

void bind_dense_sift(nb::module_& m) {
  bind_for<uint8_t>(m);
  bind_for<float>(m);
}
