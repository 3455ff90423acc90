// Colour histograms of a batch of 8-bit images, with OpenCV's colour spaces and bins.
//
// Conventions: a channel has the levels 0..255, hue 0..179; level v of a channel with `bins` bins over `levels` levels
// lies in bin floor(v * bins / levels). Output per image: (cell row, cell column, bin of channel 0, of 1, of 2) for
// joint histograms, (cell row, cell column, channel, bin) for separate ones.
//
// Pixels are taken in blocks: split into planes, converted, turned into bin numbers (all of it loops that vectorise),
// and counted one by one. Neighbouring pixels are often alike, and a counter cannot be raised again before it has been
// stored: so four tables take turns.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "_simd.h"

namespace nb = nanobind;

namespace {

constexpr int kBlock = 256;
constexpr int kTables = 4;
constexpr long kPixelsPerDrain = 65535 / kBlock * kBlock;  // a 16-bit counter can hold that many

// The channels of a block of pixels.
struct alignas(64) Planes {
  uint8_t c[3][kBlock];
};

#if defined(__AVX2__)
// Of 16 RGB pixels in three registers, the bytes of one channel lie in 16 different lanes: they are blended into one
// register and put in order. The upper halves of the registers hold 16 pixels more.
inline void split(const uint8_t* pixels, Planes& planes) {
  const auto twice = [](auto... bytes) { return _mm256_broadcastsi128_si256(_mm_setr_epi8(bytes...)); };
  const __m256i third0 = twice(-1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1);
  const __m256i third1 = twice(0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0);
  const __m256i red = twice(0, 3, 6, 9, 12, 15, 2, 5, 8, 11, 14, 1, 4, 7, 10, 13);
  const __m256i green = twice(1, 4, 7, 10, 13, 0, 3, 6, 9, 12, 15, 2, 5, 8, 11, 14);
  const __m256i blue = twice(2, 5, 8, 11, 14, 1, 4, 7, 10, 13, 0, 3, 6, 9, 12, 15);
  const auto blend = [&](__m256i of0, __m256i of1, __m256i of2) {
    return _mm256_blendv_epi8(_mm256_blendv_epi8(of2, of1, third1), of0, third0);
  };
  const auto load = [](const uint8_t* p) {
    return _mm256_set_m128i(_mm_loadu_si128((const __m128i*)(p + 48)), _mm_loadu_si128((const __m128i*)p));
  };
#pragma GCC unroll 1
  for (int i = 0; i < kBlock; i += 32) {
    const uint8_t* p = pixels + 3 * i;
    const __m256i x = load(p), y = load(p + 16), z = load(p + 32);
    simd::store(planes.c[0] + i, _mm256_shuffle_epi8(blend(x, z, y), red));
    simd::store(planes.c[1] + i, _mm256_shuffle_epi8(blend(y, x, z), green));
    simd::store(planes.c[2] + i, _mm256_shuffle_epi8(blend(z, y, x), blue));
  }
}
#else
inline void split(const uint8_t* pixels, Planes& planes) {
  for (int i = 0; i < kBlock; ++i) {
    planes.c[0][i] = pixels[3 * i];
    planes.c[1][i] = pixels[3 * i + 1];
    planes.c[2][i] = pixels[3 * i + 2];
  }
}
#endif

// Reads `count` pixels, kBlock where there are as many. A gray level stands for three equal channels.
inline void read(const uint8_t* pixels, long count, long channels, Planes& planes) {
  uint8_t padded[3 * kBlock];
  if (count < kBlock) {
    std::memset(padded, 0, sizeof padded);
    pixels = (const uint8_t*)std::memcpy(padded, pixels, count * channels);
  }
  if (channels == 3) return split(pixels, planes);
  for (auto& plane : planes.c) std::memcpy(plane, pixels, kBlock);
}

void keep_rgb(Planes&) {}

// The nearest integer, ties to even, of |x| < 2^22.
inline float nearest(float x) { return (x + 12582912.f) - 12582912.f; }

// OpenCV's fixed point: saturation d * rint(255 * 2^12 / v), hue x * rint(30 * 2^12 / d) (v the largest channel, d its
// distance from the smallest), both over 2^12. All of it is exact in floats. One division, 1 / (v d), serves both
// quotients: its rounding errors are too small to move them across a half.
void to_hsv(Planes& planes) {
  alignas(64) int16_t position[kBlock];
  alignas(64) uint8_t range[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    const uint8_t r = planes.c[0][i], g = planes.c[1][i], b = planes.c[2][i];
    const uint8_t v = std::max(r, std::max(g, b)), d = v - std::min(r, std::min(g, b));
    const int16_t on_blue = r - g + 4 * d, on_green = b - r + 2 * d, on_red = g - b;
    position[i] = v == r ? on_red : v == g ? on_green : on_blue;
    planes.c[2][i] = v;
    range[i] = d;
  }
  for (int i = 0; i < kBlock; ++i) {
    const float v = std::max<uint8_t>(planes.c[2][i], 1), d = std::max<uint8_t>(range[i], 1);
    const float inverse = 1 / (v * d);
    const float saturation = range[i] * nearest(1044480.f * d * inverse) + 2048;
    const float turn = position[i] * nearest(122880.f * v * inverse) + 2048;
    planes.c[0][i] = uint8_t(int((turn < 0 ? turn + 180 * 4096.f : turn) * (1 / 4096.f)));
    planes.c[1][i] = uint8_t(int(saturation * (1 / 4096.f)));
  }
}

// Linear light, 0..1, of the 256 levels of sRGB.
std::array<float, 256> linear_light() {
  std::array<float, 256> table;
  for (int k = 0; k < 256; ++k) {
    const double x = k / 255.0;
    table[k] = float(x <= 0.04045 ? x / 12.92 : std::pow((x + 0.055) / 1.055, 2.4));
  }
  return table;
}

// CIE's f: the cube root, and a straight line near 0.
inline float lab_curve(float t) {
  const float x = std::max(t, 0.008856f);
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = int32_t(float(bits) * (1 / 3.f)) + 709921077;  // a third of the exponent: right to 4 %
  float root;
  std::memcpy(&root, &bits, 4);
  for (int halley = 0; halley < 2; ++halley) {
    const float cube = root * root * root;
    root *= (cube + 2 * x) / (2 * cube + x);
  }
  return t > 0.008856f ? root : 7.787f * t + 16 / 116.f;
}

// L * 255 / 100, a + 128, b + 128, rounded; D65, OpenCV's matrix.
void to_lab(Planes& planes) {
  static const std::array<float, 256> light = linear_light();
  alignas(64) float linear[3][kBlock];
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < kBlock; ++i) linear[c][i] = light[planes.c[c][i]];
  for (int i = 0; i < kBlock; ++i) {
    const float r = linear[0][i], g = linear[1][i], b = linear[2][i];
    const float x = lab_curve((0.412453f * r + 0.357580f * g + 0.180423f * b) * (1 / 0.950456f));
    const float y = lab_curve(0.212671f * r + 0.715160f * g + 0.072169f * b);
    const float z = lab_curve((0.019334f * r + 0.119193f * g + 0.950227f * b) * (1 / 1.088754f));
    planes.c[0][i] = uint8_t(int((116 * y - 16) * 2.55f + 0.5f));
    planes.c[1][i] = uint8_t(int(500 * (x - y) + 128.5f));
    planes.c[2][i] = uint8_t(int(200 * (y - z) + 128.5f));
  }
}

// The axes R - G, R + G - 2 B and R + G + B, each stretched to 0..255 and rounded, halves up.
void to_opponent(Planes& planes) {
  for (int i = 0; i < kBlock; ++i) {
    const uint16_t r = planes.c[0][i], g = planes.c[1][i], b = planes.c[2][i];
    planes.c[0][i] = uint8_t(uint16_t(r - g + 256) >> 1);
    planes.c[1][i] = uint8_t(uint16_t(r + g - 2 * b + 512) >> 2);
    planes.c[2][i] = uint8_t(uint16_t(r + g + b + 1) / 3);
  }
}

// Luma of Rec. 601 in OpenCV's fixed point.
void to_gray(Planes& planes) {
  for (int i = 0; i < kBlock; ++i) {
    const uint32_t r = planes.c[0][i], g = planes.c[1][i], b = planes.c[2][i];
    planes.c[0][i] = uint8_t((9798 * r + 19235 * g + 3735 * b + 16384) >> 15);
  }
}

struct Space {
  void (*convert)(Planes&);
  std::array<int, 3> levels;
  size_t n_channels;
};

Space parse_space(const std::string& name) {
  if (name == "rgb") return {keep_rgb, {256, 256, 256}, 3};
  if (name == "hsv") return {to_hsv, {180, 256, 256}, 3};
  if (name == "lab") return {to_lab, {256, 256, 256}, 3};
  if (name == "opponent") return {to_opponent, {256, 256, 256}, 3};
  if (name == "gray") return {to_gray, {256, 256, 256}, 1};
  throw std::invalid_argument("unknown colour space");
}

// From levels to the number of a counter.
class Binning {
 public:
  Binning(const Space& space, const std::vector<int>& bins, bool joint)
      : joint_(joint && bins.size() == 3), n_planes_(joint_ ? 1 : int(bins.size())) {
    for (size_t c = 0; c < bins.size(); ++c) {
      scale_[c] = uint16_t((bins[c] * 32768 + space.levels[c] - 1) / space.levels[c]);
      first_[c] = uint16_t(n_bins_);
      n_bins_ = joint_ ? std::max(n_bins_, 1L) * bins[c] : n_bins_ + bins[c];
    }
    if (joint_) weight_ = {uint16_t(bins[1] * bins[2]), uint16_t(bins[2])};
    if (simd::kGathersBits && joint_ && space.convert == keep_rgb) set_leading(bins);
  }

  // The bits of blue << 16 | green << 8 | red, as a pixel lies in memory, that make the number of a counter; 0 where
  // it isn't as easy as that. The counters of the bins, in the bins' order, are then leading_order().
  uint64_t leading() const { return leading_; }
  const int32_t* leading_order() const { return leading_order_.data(); }

  long n_bins() const { return n_bins_; }
  int n_planes() const { return n_planes_; }  // counts per pixel

  void operator()(const Planes& planes, uint16_t (*index)[kBlock]) const {
    if (joint_)
      for (int i = 0; i < kBlock; ++i)
        index[0][i] = uint16_t(bin(planes, 0, i) * weight_[0] + bin(planes, 1, i) * weight_[1] + bin(planes, 2, i));
    else
      for (int c = 0; c < n_planes_; ++c)
        for (int i = 0; i < kBlock; ++i) index[c][i] = uint16_t(bin(planes, c, i) + first_[c]);
  }

 private:
  bool joint_;
  int n_planes_;
  long n_bins_ = 0;
  std::array<uint16_t, 3> scale_{}, first_{};
  std::array<uint16_t, 2> weight_{};
  uint64_t leading_ = 0;
  std::vector<int32_t> leading_order_;

  void set_leading(const std::vector<int>& bins) {
    if (std::any_of(bins.begin(), bins.end(), [](int n) { return n & (n - 1); })) return;
    for (int c = 0; c < 3; ++c) leading_ |= uint64_t(256 - 256 / bins[c]) << 8 * c;
    for (int r = 0; r < bins[0]; ++r)
      for (int g = 0; g < bins[1]; ++g)
        for (int b = 0; b < bins[2]; ++b) leading_order_.push_back((b * bins[1] + g) * bins[0] + r);
  }

  // floor(v * bins / levels): exact for every level and number of bins up to 256.
  uint16_t bin(const Planes& planes, int c, int i) const {
    return uint16_t(uint32_t(uint16_t(2 * planes.c[c][i])) * scale_[c] >> 16);
  }
};

enum class Norm { None, L1, L2, Hellinger };

Norm parse_norm(const std::string& name) {
  if (name == "none") return Norm::None;
  if (name == "l1") return Norm::L1;
  if (name == "l2") return Norm::L2;
  if (name == "hellinger") return Norm::Hellinger;
  throw std::invalid_argument("unknown norm");
}

// Writes the counts in the order given, or as they are where that is null.
void normalise(const uint32_t* __restrict counts, const int32_t* __restrict order, long n, Norm norm,
               float* __restrict out) {
  uint64_t sum = 0, squares = 0;
  for (long k = 0; k < n; ++k) out[k] = float(counts[order ? order[k] : k]);
  if (norm == Norm::None) return;
  for (long k = 0; k < n; ++k) sum += counts[k];
  for (long k = 0; k < n; ++k) squares += uint64_t(counts[k]) * counts[k];
  const float size = norm == Norm::L2 ? float(std::sqrt(double(squares))) : float(sum);
  for (long k = 0; k < n; ++k) out[k] /= size;
  if (norm == Norm::Hellinger)
    for (long k = 0; k < n; ++k) out[k] = std::sqrt(out[k]);
}

// The histogram of one cell. Its tables are no power of two apart: a load would wait for a store 4096 bytes away.
class Counters {
 public:
  explicit Counters(long n_bins)
      : n_bins_(n_bins),
        stride_(simd::round_up(n_bins, 32) + 32),
        tables_(kTables * stride_),
        totals_(n_bins) {}

  void add(const uint16_t* index, long n) {
    uint16_t *a = tables_.data(), *b = a + stride_, *c = b + stride_, *d = c + stride_;
    long i = 0;
    for (; i + 4 <= n; i += 4) {
      ++a[index[i]];
      ++b[index[i + 1]];
      ++c[index[i + 2]];
      ++d[index[i + 3]];
    }
    for (; i < n; ++i) ++a[index[i]];
  }

  // The same of RGB pixels, whose bins are made of their leading bits: six bytes, two pixels, at a time.
  void add_leading(const uint8_t* pixels, long n, uint64_t leading) {
    uint16_t *a = tables_.data(), *b = a + stride_, *c = b + stride_, *d = c + stride_;
    long i = 0;
    for (; i + 5 <= n; i += 4) {  // eight bytes are read
      const uint64_t ab = simd::load_bytes(pixels + 3 * i), cd = simd::load_bytes(pixels + 3 * i + 6);
      ++a[simd::gather_bits(ab, leading)];
      ++b[simd::gather_bits(ab, leading << 24)];
      ++c[simd::gather_bits(cd, leading)];
      ++d[simd::gather_bits(cd, leading << 24)];
    }
    for (const uint8_t* p = pixels + 3 * i; i < n; ++i, p += 3)
      ++a[simd::gather_bits(uint64_t(p[2]) << 16 | p[1] << 8 | p[0], leading)];
  }

  void drain() {
    uint16_t *__restrict a = tables_.data(), *__restrict b = a + stride_;
    uint16_t *__restrict c = b + stride_, *__restrict d = c + stride_;
    uint32_t* __restrict totals = totals_.data();
    for (long k = 0, n = n_bins_; k < n; ++k) {
      totals[k] += uint32_t(a[k]) + b[k] + c[k] + d[k];
      a[k] = b[k] = c[k] = d[k] = 0;
    }
  }

  void take(const int32_t* order, Norm norm, float* out) {
    drain();
    normalise(totals_.data(), order, n_bins_, norm, out);
    std::fill(totals_.begin(), totals_.end(), 0);
  }

 private:
  long n_bins_, stride_;
  std::vector<uint16_t> tables_;
  std::vector<uint32_t> totals_;
};

// Counts the pixels of a row of cells. They follow each other in memory, and go round and round the cells.
class Band {
 public:
  Band(long width, long channels, long n_cells, const Space& space, const Binning& binning)
      : channels_(channels),
        leading_(channels == 3 ? binning.leading() : 0),
        convert_(space.convert),
        binning_(binning),
        cells_(n_cells, Counters(binning.n_bins())),
        edges_(n_cells + 1) {
    for (long j = 0; j <= n_cells; ++j) edges_[j] = j * width / n_cells;
  }

  void count(const uint8_t* pixels, long n) {
    x_ = 0, cell_ = 0;
    if (leading_) return count_leading(pixels, n);
    for (long start = 0; start < n; start += kBlock) {
      const long size = std::min<long>(kBlock, n - start);
      read(pixels + start * channels_, size, channels_, planes_);
      convert_(planes_);
      binning_(planes_, index_);
      spread(size, [&](Counters& cell, long i, long run) {
        for (int c = 0; c < binning_.n_planes(); ++c) cell.add(index_[c] + i, run);
      });
      if ((start + size) % kPixelsPerDrain == 0)
        for (Counters& cell : cells_) cell.drain();
    }
  }

  void take(Norm norm, float* out) {
    for (Counters& cell : cells_) {
      cell.take(leading_ ? binning_.leading_order() : nullptr, norm, out);
      out += binning_.n_bins();
    }
  }

 private:
  long channels_;
  uint64_t leading_;
  void (*convert_)(Planes&);
  const Binning& binning_;
  std::vector<Counters> cells_;
  std::vector<long> edges_;
  long x_ = 0;
  size_t cell_ = 0;
  Planes planes_;
  alignas(64) uint16_t index_[3][kBlock];

  void count_leading(const uint8_t* pixels, long n) {
    for (long start = 0; start < n; start += kPixelsPerDrain) {
      spread(std::min(kPixelsPerDrain, n - start), [&](Counters& cell, long i, long run) {
        cell.add_leading(pixels + 3 * (start + i), run, leading_);
      });
      for (Counters& cell : cells_) cell.drain();
    }
  }

  // Calls add(cell, first pixel, number of pixels) for the runs of `n` pixels in a cell each.
  template <class Add>
  void spread(long n, Add add) {
    for (long i = 0, run; i < n; i += run) {
      run = cells_.size() == 1 ? n : std::min(n - i, edges_[cell_ + 1] - x_);
      add(cells_[cell_], i, run);
      x_ += run;
      if (cells_.size() > 1 && x_ == edges_[cell_ + 1] && ++cell_ == cells_.size()) x_ = 0, cell_ = 0;
    }
  }
};

void describe(const uint8_t* images, long n_images, long height, long width, long channels, const Space& space,
              const Binning& binning, std::pair<long, long> grid, Norm norm, float* out) {
  Band band(width, channels, grid.second, space, binning);
  for (long m = 0; m < n_images; ++m)
    for (long r = 0; r < grid.first; ++r) {
      const long top = r * height / grid.first, bottom = (r + 1) * height / grid.first;
      band.count(images + (m * height + top) * width * channels, (bottom - top) * width);
      band.take(norm, out);
      out += grid.second * binning.n_bins();
    }
}

using Images = nb::ndarray<const uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Features = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void color_histogram(Images images, const std::vector<int>& bins, const std::string& color_space, bool joint,
                     std::pair<long, long> grid, const std::string& norm, Features out) {
  const long n = long(images.shape(0)), height = long(images.shape(1)), width = long(images.shape(2));
  const long channels = long(images.shape(3));
  const Space space = parse_space(color_space);
  const bool bins_fit = bins.size() == space.n_channels &&
                        std::all_of(bins.begin(), bins.end(), [](int k) { return k >= 1 && k <= 256; });
  if (!bins_fit || (channels != 1 && channels != 3) || grid.first < 1 || grid.second < 1 || grid.first > height ||
      grid.second > width)
    throw std::invalid_argument("color_histogram: the shape of images, the bins and the grid do not fit together");
  const Binning binning(space, bins, joint);
  if (binning.n_bins() > 65536 || long(out.shape(0)) != n ||
      long(out.shape(1)) != grid.first * grid.second * binning.n_bins())
    throw std::invalid_argument("color_histogram: out has the wrong shape, or there are too many bins");
  const Norm parsed = parse_norm(norm);
  nb::gil_scoped_release release;
  describe(images.data(), n, height, width, channels, space, binning, grid, parsed, out.data());
}

}  // namespace

void bind_color_histogram(nb::module_& m) {
  m.def("color_histogram", &color_histogram, nb::arg("images").noconvert(), nb::arg("bins"), nb::arg("color_space"),
        nb::arg("joint"), nb::arg("grid"), nb::arg("norm"), nb::arg("out").noconvert());
}
