// Features of learned patches: how every patch of an image responds to a dictionary, averaged over cells.
//
// Conventions: patch (i, j) has its top left pixel at (i * step, j * step); its numbers run over rows, columns,
// channels. A grid of g cells over n patches has its edges at k * n / g, rounded down.
// Output per image: (grid, cell, sign, dictionary entry), the cells of a grid from top left to bottom right.
//
// Whitening is folded into the dictionary by the caller: one matrix product, `patch . direction + offset`, gives the
// whitened patch's dot product with an entry c (less |c|^2 / 2 where distances are wanted). A distance also needs the
// whitened patch's length: that of `factor * patch + factor_offset`, half a product as `factor` is triangular.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <string>
#include <vector>

#include "_gemm.h"

namespace nb = nanobind;
using simd::kLanes;
using V = simd::Vec<float>;

namespace {

enum class Activation { Triangle, SoftThreshold, Hard };

struct Geometry {
  long height, width, channels, patch_rows, patch_cols, step;

  long down() const { return (height - patch_rows) / step + 1; }
  long across() const { return (width - patch_cols) / step + 1; }
  long run() const { return patch_cols * channels; }
  long depth() const { return patch_rows * run(); }
  long stride() const { return simd::round_up(depth(), kLanes<float>); }
};

inline float unit(uint8_t pixel) { return float(pixel) / 255; }
inline float unit(float pixel) { return pixel; }

// Subtracts the mean and divides by the standard deviation, which `epsilon` keeps from 0. Zeros behind the patch, up
// to a whole vector, stay zeros.
void normalise_contrast(float* patch, long depth, float epsilon) {
  V total{}, squares{};
  for (long i = 0; i < depth; i += kLanes<float>) total += simd::load(patch + i);
  const V mean = simd::splat<V>(simd::sum(total) / depth);
  for (long i = 0; i < depth; i += kLanes<float>) {
    V v = simd::load(patch + i) - mean;
    if (depth - i < kLanes<float>) v = simd::first_lanes(v, int(depth - i), V{});
    simd::store(patch + i, v);
    squares += v * v;
  }
  const float scale = 1 / std::sqrt(simd::sum(squares) / depth + epsilon);
  for (long i = 0; i < depth; i += kLanes<float>) simd::store(patch + i, simd::load(patch + i) * scale);
}

// Some rows of an image, as wide as the image and as high as a patch, as numbers in [0, 1].
class Band {
 public:
  explicit Band(const Geometry& g) : g_(g), pixels_(g.patch_rows * g.width * g.channels) {}

  template <class T>
  void read(const T* image, long patch_row) {
    const T* first = image + patch_row * g_.step * g_.width * g_.channels;
    for (size_t i = 0; i < pixels_.size(); ++i) pixels_[i] = unit(first[i]);
  }
  void copy_patch(long patch_col, float* to) const {
    const float* from = pixels_.data() + patch_col * g_.step * g_.channels;
    for (long r = 0; r < g_.patch_rows; ++r, from += g_.width * g_.channels, to += g_.run())
      std::copy_n(from, g_.run(), to);
  }

 private:
  const Geometry& g_;
  std::vector<float> pixels_;
};

using Grids = std::vector<std::pair<long, long>>;

long edge(long k, long cells, long n) { return k * n / cells; }

// Where any grid has an edge along one axis of n patches: the spans between them are summed once for all grids.
class Spans {
 public:
  Spans(long n, const std::vector<long>& grids) : n_(n), of_(n) {
    for (long cells : grids)
      for (long k = 0; k <= cells; ++k) edges_.push_back(edge(k, cells, n));
    std::sort(edges_.begin(), edges_.end());
    edges_.erase(std::unique(edges_.begin(), edges_.end()), edges_.end());
    for (long i = 0, span = 0; i < n; ++i) of_[i] = i < edges_[span + 1] ? span : ++span;
  }
  long count() const { return long(edges_.size()) - 1; }
  long of(long patch) const { return of_[patch]; }
  // The first span of cell k, and the first beyond it.
  std::pair<long, long> of_cell(long k, long cells) const {
    const long first = edge(k, cells, n_), last = edge(k + 1, cells, n_);
    return {of_[first], of_[last - 1] + 1};
  }
  long patches(std::pair<long, long> spans) const { return edges_[spans.second] - edges_[spans.first]; }

 private:
  long n_;
  std::vector<long> edges_, of_;
};

std::vector<long> each(const Grids& grids, long std::pair<long, long>::*side) {
  std::vector<long> cells;
  for (const auto& grid : grids) cells.push_back(grid.*side);
  return cells;
}

// The sums of an image's responses over every pair of spans, and from them the means over the cells of every grid.
class Pool {
 public:
  Pool(const Geometry& g, const Grids& grids, long n_entries, long padded, int signs)
      : grids_(grids), rows_(g.down(), each(grids, &std::pair<long, long>::first)),
        cols_(g.across(), each(grids, &std::pair<long, long>::second)), n_entries_(n_entries), padded_(padded),
        signs_(signs), sums_(rows_.count() * cols_.count() * signs * padded / kLanes<float>) {}

  void clear() { std::fill(sums_.begin(), sums_.end(), V{}); }
  long span(long row, long col) const { return rows_.of(row) * cols_.count() + cols_.of(col); }
  float* sums(long span) { return reinterpret_cast<float*>(sums_.data()) + span * signs_ * padded_; }

  // Returns where the next image's features go.
  float* write(float* out) {
    for (const auto& [down, across] : grids_)
      for (long i = 0; i < down; ++i)
        for (long j = 0; j < across; ++j, out += signs_ * n_entries_)
          write_mean(rows_.of_cell(i, down), cols_.of_cell(j, across), out);
    return out;
  }

 private:
  const Grids& grids_;
  Spans rows_, cols_;
  long n_entries_, padded_;
  int signs_;
  std::vector<V> sums_;

  void write_mean(std::pair<long, long> rows, std::pair<long, long> cols, float* out) {
    std::fill_n(out, signs_ * n_entries_, 0.f);
    for (long r = rows.first; r < rows.second; ++r)
      for (long c = cols.first; c < cols.second; ++c)
        for (int sign = 0; sign < signs_; ++sign) {
          const float* from = sums(r * cols_.count() + c) + sign * padded_;
          for (long k = 0; k < n_entries_; ++k) out[sign * n_entries_ + k] += from[k];
        }
    const float share = 1 / float(rows_.patches(rows) * cols_.patches(cols));
    for (long k = 0; k < signs_ * n_entries_; ++k) out[k] *= share;
  }
};

// A matrix whose every row is to be multiplied with patches, and what is added to each product.
struct Factor {
  gemm::Panels panels;
  std::vector<V> offsets;
  Factor(const float* rows, const float* row_offsets, long n_rows, long depth, float fill)
      : panels(rows, n_rows, depth), offsets(2 * panels.count(), simd::splat<V>(fill)) {
    std::copy_n(row_offsets, n_rows, reinterpret_cast<float*>(offsets.data()));
  }
  long padded() const { return panels.count() * gemm::kColumns; }
};

// Patches that go through the product together: their responses to the whole dictionary stay in the L2 cache.
constexpr long kBlock = 24;

// Responds to patches, a block at a time, and adds the activations to the pool.
template <Activation A>
class Encoder {
 public:
  static constexpr int kSigns = A == Activation::SoftThreshold ? 2 : 1;
  // What fills up the last panel is at distance 0, or never the best.
  static constexpr float kFill = A == Activation::Triangle ? INFINITY : A == Activation::Hard ? -INFINITY : 0;

  Encoder(const Geometry& g, const Factor& dictionary, const Factor& whitening, long n_entries, float alpha, Pool& pool)
      : depth_(g.depth()), stride_(g.stride()), n_entries_(n_entries), alpha_(alpha), dictionary_(dictionary),
        whitening_(whitening), pool_(pool), patches_(kBlock * stride_ / kLanes<float>),
        responses_(dictionary.panels.count() * 2 * kBlock) {}

  // Where the next patch goes; its place is then confirmed with `add`.
  float* next() { return reinterpret_cast<float*>(patches_.data()) + size_ * stride_; }
  void add(long span) {
    spans_[size_++] = span;
    if (size_ == kBlock) flush();
  }
  void flush() {
    if constexpr (A == Activation::Triangle) measure();
    respond();
    for (long first = 0, last; first < size_; first = last) {
      last = std::find_if(spans_ + first, spans_ + size_, [&](long s) { return s != spans_[first]; }) - spans_;
      pool(first, last, pool_.sums(spans_[first]));
    }
    size_ = 0;
  }

 private:
  long depth_, stride_, n_entries_;
  float alpha_;
  const Factor &dictionary_, &whitening_;
  Pool& pool_;
  std::vector<V> patches_, responses_;
  long size_ = 0, spans_[kBlock];
  V lengths_[kBlock], totals_[kBlock];

  // Rows of a product come in whole steps: what lies behind the last patch is multiplied in vain.
  template <class Result, class Meanwhile>
  void multiply(const Factor& factor, long panel, long from, Result&& result, Meanwhile&& meanwhile) const {
    const float* patches = reinterpret_cast<const float*>(patches_.data());
    for (long r = 0; r < size_; r += gemm::kRows)
      gemm::step<gemm::kRows>(
          patches + r * stride_ + from, stride_, depth_ - from, factor.panels[panel] + 2 * from,
          factor.offsets[2 * panel], factor.offsets[2 * panel + 1], [&](int i, V a, V b) { result(r + i, a, b); },
          meanwhile);
  }

  // The squared length of each whitened patch. Row i of `whitening` starts with i zeros.
  void measure() {
    std::fill_n(lengths_, kBlock, V{});
    for (long p = 0; p < whitening_.panels.count(); ++p)
      multiply(
          whitening_, p, p * gemm::kColumns,
          [&](long r, V a, V b) { lengths_[r] = simd::fma(a, a, simd::fma(b, b, lengths_[r])); }, [](int) {});
    for (V& length : lengths_) length = simd::splat<V>(simd::sum(length));
  }

  // Each step leaves products behind, which the next turns into distances.
  void respond() {
    std::fill_n(totals_, kBlock, V{});
    V* products = nullptr;
    long row = 0;
    const auto finish = [&](int i) {
      if (A != Activation::Triangle || !products) return;
      products[i] = distance(products[i], lengths_[row + i / 2]);
      totals_[row + i / 2] += products[i];
    };
    for (long p = 0; p < dictionary_.panels.count(); ++p) {
      V* to = responses_.data() + p * 2 * kBlock;
      multiply(
          dictionary_, p, 0,
          [&](long r, V a, V b) {
            to[2 * r] = a, to[2 * r + 1] = b;
            if (r % gemm::kRows == 0) products = to + 2 * r, row = r;
          },
          finish);
    }
    for (int i = 0; i < 2 * gemm::kRows; ++i) finish(i);
  }
  static V distance(V product, V length) {
    return simd::sqrt(simd::max(simd::fma(product, simd::splat<V>(-2.f), length), V{}));
  }

  void pool(long first, long last, float* sums) {
    if constexpr (A == Activation::Triangle) pool_triangle(first, last, sums);
    if constexpr (A == Activation::SoftThreshold) pool_soft_threshold(first, last, sums);
    if constexpr (A == Activation::Hard) pool_hard(first, last, sums);
  }

  void pool_triangle(long first, long last, float* sums) {
    V mean[kBlock];
    for (long r = first; r < last; ++r) mean[r] = simd::splat<V>(simd::sum(totals_[r]) / n_entries_);
    for (long p = 0; p < dictionary_.panels.count(); ++p, sums += gemm::kColumns) {
      const V* distances = responses_.data() + p * 2 * kBlock;
      V left = simd::load(sums), right = simd::load(sums + kLanes<float>);
      for (long r = first; r < last; ++r) {
        left += simd::max(mean[r] - distances[2 * r], V{});
        right += simd::max(mean[r] - distances[2 * r + 1], V{});
      }
      simd::store(sums, left), simd::store(sums + kLanes<float>, right);
    }
  }

  void pool_soft_threshold(long first, long last, float* sums) {
    const V alpha = simd::splat<V>(alpha_);
    for (long p = 0; p < 2 * dictionary_.panels.count(); ++p, sums += kLanes<float>) {
      const V* products = responses_.data() + p / 2 * 2 * kBlock + p % 2;
      float* minus = sums + dictionary_.padded();
      V more = simd::load(sums), less = simd::load(minus);
      for (long r = first; r < last; ++r) {
        more += simd::max(products[2 * r] - alpha, V{});
        less += simd::max(-products[2 * r] - alpha, V{});
      }
      simd::store(sums, more), simd::store(minus, less);
    }
  }

  void pool_hard(long first, long last, float* sums) {
    for (long r = first; r < last; ++r) {
      gemm::Best best;
      gemm::Lanes entries = gemm::lane_numbers();
      for (long p = 0; p < 2 * dictionary_.panels.count(); ++p, entries += kLanes<float>)
        best.offer(responses_[(p / 2 * kBlock + r) * 2 + p % 2], entries);
      sums[best.winner()] += 1;
    }
  }
};

struct Model {
  long n_entries;
  const float *directions, *offsets, *factor, *factor_offsets;
  float alpha, epsilon;
};

template <Activation A, class T>
void describe(const T* images, long n_images, const Geometry& g, const Grids& grids, const Model& model, float* out) {
  const Factor dictionary(model.directions, model.offsets, model.n_entries, g.depth(), Encoder<A>::kFill);
  const Factor whitening(model.factor, model.factor_offsets, g.depth(), g.depth(), 0);
  Pool pool(g, grids, model.n_entries, dictionary.padded(), Encoder<A>::kSigns);
  Encoder<A> encoder(g, dictionary, whitening, model.n_entries, model.alpha, pool);
  Band band(g);
  for (long m = 0; m < n_images; ++m) {
    pool.clear();
    for (long i = 0; i < g.down(); ++i) {
      band.read(images + m * g.height * g.width * g.channels, i);
      for (long j = 0; j < g.across(); ++j) {
        band.copy_patch(j, encoder.next());
        normalise_contrast(encoder.next(), g.depth(), model.epsilon);
        encoder.add(pool.span(i, j));
      }
    }
    encoder.flush();
    out = pool.write(out);
  }
}

Activation parse_activation(const std::string& name) {
  if (name == "triangle") return Activation::Triangle;
  if (name == "soft_threshold") return Activation::SoftThreshold;
  if (name == "hard") return Activation::Hard;
  throw std::invalid_argument("unknown activation");
}

// Does every grid have at least one patch per cell, and does `n_features` fit?
bool fits(const Geometry& g, const Grids& grids, long n_responses, long n_features) {
  long n_cells = 0;
  for (const auto& [down, across] : grids) {
    if (down < 1 || across < 1 || down > g.down() || across > g.across()) return false;
    n_cells += down * across;
  }
  return n_cells * n_responses == n_features && n_features > 0;
}

template <class T>
using Images = nb::ndarray<const T, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Features = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class T>
void patch_features(Images<T> images, std::pair<long, long> patch_size, long step, const Grids& grids,
                    const std::string& activation, float alpha, float epsilon, Matrix directions, Vector offsets,
                    Matrix factor, Vector factor_offsets, Features out) {
  const Activation parsed = parse_activation(activation);
  const long n = long(images.shape(0)), n_entries = long(directions.shape(0));
  const Geometry g{long(images.shape(1)), long(images.shape(2)), long(images.shape(3)),
                   patch_size.first, patch_size.second, step};
  const bool possible = g.patch_rows >= 1 && g.patch_cols >= 1 && step >= 1 && g.channels >= 1 &&
                        g.patch_rows <= g.height && g.patch_cols <= g.width;
  const long signs = parsed == Activation::SoftThreshold ? 2 : 1;
  if (!possible || !fits(g, grids, signs * n_entries, long(out.shape(1))) || long(out.shape(0)) != n ||
      long(directions.shape(1)) != g.depth() || long(offsets.shape(0)) != n_entries ||
      long(factor.shape(0)) != g.depth() || long(factor.shape(1)) != g.depth() ||
      long(factor_offsets.shape(0)) != g.depth())
    throw std::invalid_argument("patch_features: the shapes of images, patches, grids, factors and out do not fit");
  const Model model{n_entries, directions.data(), offsets.data(), factor.data(), factor_offsets.data(), alpha, epsilon};
  nb::gil_scoped_release release;
  if (parsed == Activation::Triangle)
    describe<Activation::Triangle>(images.data(), n, g, grids, model, out.data());
  else if (parsed == Activation::SoftThreshold)
    describe<Activation::SoftThreshold>(images.data(), n, g, grids, model, out.data());
  else
    describe<Activation::Hard>(images.data(), n, g, grids, model, out.data());
}

template <class T>
void bind_for(nb::module_& m) {
  m.def("patch_features", &patch_features<T>, nb::arg("images").noconvert(), nb::arg("patch_size"), nb::arg("step"),
        nb::arg("grids"), nb::arg("activation"), nb::arg("alpha"), nb::arg("epsilon"),
        nb::arg("directions").noconvert(), nb::arg("offsets").noconvert(), nb::arg("factor").noconvert(),
        nb::arg("factor_offsets").noconvert(), nb::arg("out").noconvert());
}

}  // namespace

void bind_patch_kmeans(nb::module_& m) {
  bind_for<uint8_t>(m);
  bind_for<float>(m);
}
