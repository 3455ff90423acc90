// How the descriptors of a cell would move the means and variances of a Gaussian mixture.
//
// The log density of a descriptor x under a component is a product of (x, x^2) with (mean, -1/2) / variance, plus an
// offset: one matrix product for all components. Nearly all posteriors are negligible, so that what is summed, the
// descriptor's deviation from the mean in standard deviations, is found only for the few that are not.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <memory>
#include <type_traits>

#include "_gemm.h"

namespace nb = nanobind;
using gemm::kBlock;
using gemm::kColumns;
using simd::kLanes;
using V = simd::Vec<float>;

namespace {

constexpr float kNegligible = 1e-8f;  // a posterior; what it would add stays below the features' rounding

std::vector<double> inverses(const double* numbers, long n) {
  std::vector<double> inverses(n);
  for (long i = 0; i < n; ++i) inverses[i] = 1.0 / numbers[i];
  return inverses;
}

// Where the components lie on average, the narrow ones above all. Far from there x^2 and what is subtracted from it
// would be large and nearly equal.
template <class T>
std::vector<T> find_center(const double* weights, const double* means, const std::vector<double>& precisions,
                           long n_components, long n_dims) {
  std::vector<double> sum(n_dims), total(n_dims);
  for (long k = 0; k < n_components; ++k)
    for (long i = 0; i < n_dims; ++i) {
      const double share = weights[k] * precisions[k * n_dims + i];
      sum[i] += share * means[k * n_dims + i], total[i] += share;
    }
  std::vector<T> center(n_dims);
  for (long i = 0; i < n_dims; ++i) center[i] = T(sum[i] / total[i]);
  return center;
}

// A descriptor that may belong to some component.
struct Match {
  long row;
  float posterior;
};

// Turns a descriptor's log densities, of which the largest is given, into what is proportional to its posteriors, and
// returns their sum.
float exponentiate(float* densities, long n, float largest) {
  V sum{};
  for (long k = 0; k < n; k += kLanes<float>) {
    const V e = simd::exp(simd::load(densities + k) - simd::splat<V>(largest));
    simd::store(densities + k, e);
    sum += e;
  }
  return simd::sum(sum);
}

// Deviations are found and summed as T. In double: the sums of an image may nearly cancel, and the features scale up
// what is left of them.
template <class T>
class Mixture {
 public:
  Mixture(const double* weights, const double* means, const double* variances, long n_components, long n_dims)
      : Mixture(weights, means, variances, inverses(variances, n_components * n_dims), n_components, n_dims) {}
  long n_components() const { return n_components_; }
  long n_dims() const { return n_dims_; }
  long padded() const { return panels_.count() * kColumns; }

  // Writes the descriptor, about the mixture's center, and its squares: what densities() multiplies. They take turns,
  // a few each, so that the sums of what cancels stay small.
  void prepare(const T* descriptor, float* to) const {
    const long n_dims = n_dims_;  // in registers: what is stored below might be taken for a member
    const T* center = center_.data();
    for (long start = 0; start < n_dims; start += kRun) {
      const long size = std::min(kRun, n_dims - start);
      float *plain = to + 2 * start, *square = plain + size;
      for (long i = 0; i < size; ++i) {
        const float x = float(descriptor[start + i] - center[start + i]);
        plain[i] = x, square[i] = x * x;
      }
    }
  }
  // The log densities, but for a constant, of kBlock prepared descriptors; -infinity behind the last component.
  void densities(const float* prepared, float* out) const {
    for (long p = 0; p < panels_.count(); ++p)
      gemm::multiply(prepared, kBlock, 2 * n_dims_, 2 * n_dims_, panels_[p], offsets_[2 * p], offsets_[2 * p + 1],
                     [&](long r, V a, V b) {
                       simd::store(out + r * padded() + p * kColumns, a);
                       simd::store(out + r * padded() + p * kColumns + kLanes<float>, b);
                     });
  }
  // Finds the posteriors of these components alone anew: densities() rounds what is large and nearly cancels. There is
  // room for whole vectors of posteriors.
  void refine(const T* descriptor, const long* components, long n, float* posteriors) const {
    const double level = log_density(descriptor, components[0]);  // differences fit into a float
    for (long i = 0; i < n; ++i) posteriors[i] = i == 0 ? 0 : float(log_density(descriptor, components[i]) - level);
    const long padded = simd::round_up(n, kLanes<float>);
    std::fill(posteriors + n, posteriors + padded, -INFINITY);
    const float sum = exponentiate(posteriors, padded, *std::max_element(posteriors, posteriors + n));
    for (long i = 0; i < n; ++i) posteriors[i] /= sum;
  }
  // Adds posterior * z and posterior * (z^2 - 1), z the deviation from component k in standard deviations.
  void add(const T* descriptors, const Match* from, const Match* to, long k, T* first, T* second) const {
    constexpr long kLane = kLanes<T>;
    long i = 0;
    for (; i + kWide * kLane <= n_dims_; i += kWide * kLane) add_at<kWide>(descriptors, from, to, k, i, first, second);
    for (; i + kLane <= n_dims_; i += kLane) add_at<1>(descriptors, from, to, k, i, first, second);
    for (; i < n_dims_; ++i)
      for (const Match* match = from; match != to; ++match) {
        const T z = (descriptors[match->row * n_dims_ + i] - means_[k * n_dims_ + i]) * scales_[k * n_dims_ + i];
        first[i] += match->posterior * z;
        second[i] += match->posterior * (z * z - 1);
      }
  }

 private:
  static constexpr long kRun = 16;
  static constexpr int kWide = simd::kBytes == 64 ? 4 : 2;  // vectors at a time: as many sums as the registers hold
  long n_components_, n_dims_;
  std::vector<T> center_, means_, scales_;
  gemm::Panels panels_;
  std::vector<double> heights_;  // log densities at the means, but for a constant
  std::vector<V> offsets_;

  Mixture(const double* weights, const double* means, const double* variances, const std::vector<double>& precisions,
          long n_components, long n_dims)
      : n_components_(n_components), n_dims_(n_dims),
        center_(find_center<T>(weights, means, precisions, n_components, n_dims)),
        means_(means, means + n_components * n_dims), scales_(n_components * n_dims),
        panels_(factors(precisions).data(), n_components, 2 * n_dims), heights_(n_components) {
    for (size_t i = 0; i < scales_.size(); ++i) scales_[i] = T(std::sqrt(precisions[i]));
    set_offsets(weights, variances, precisions);
  }
  double centered_mean(long k, long i) const { return double(means_[k * n_dims_ + i]) - center_[i]; }
  std::vector<float> factors(const std::vector<double>& precisions) const {
    std::vector<float> factors(2 * means_.size());
    for (long k = 0; k < n_components_; ++k)
      for (long start = 0; start < n_dims_; start += kRun) {
        const long size = std::min(kRun, n_dims_ - start);
        float *of_plain = &factors[2 * k * n_dims_ + 2 * start], *of_square = of_plain + size;
        const double* precision = &precisions[k * n_dims_ + start];
        for (long i = 0; i < size; ++i) {
          of_plain[i] = float(centered_mean(k, start + i) * precision[i]);
          of_square[i] = float(-0.5 * precision[i]);
        }
      }
    return factors;
  }
  void set_offsets(const double* weights, const double* variances, const std::vector<double>& precisions) {
    offsets_.resize(2 * panels_.count());
    float* to = reinterpret_cast<float*>(offsets_.data());
    std::fill_n(to, padded(), -INFINITY);
    std::vector<double> offsets(n_components_);
    double total = 0, mean = 0;
    for (long k = 0; k < n_components_; ++k) {
      offsets[k] = heights_[k] = std::log(weights[k]) - 0.5 * log_of_product(variances + k * n_dims_, n_dims_);
      for (long i = 0; i < n_dims_; ++i) {
        const double distance = centered_mean(k, i);
        offsets[k] -= 0.5 * distance * distance * precisions[k * n_dims_ + i];
      }
      mean += weights[k] * offsets[k], total += weights[k];
    }
    for (long k = 0; k < n_components_; ++k) to[k] = float(offsets[k] - mean / total);  // small numbers round less
  }
  // Four numbers share a logarithm: that many from the range of a float multiply to a double.
  static double log_of_product(const double* numbers, long n) {
    double sum = 0;
    for (long start = 0; start < n; start += 4) {
      double product = 1;
      for (long i = start; i < std::min(start + 4, n); ++i) product *= numbers[i];
      sum += std::log(product);
    }
    return sum;
  }
  // But for a constant.
  double log_density(const T* descriptor, long k) const {
    using Values = simd::Vec<T>;
    const T *mean = &means_[k * n_dims_], *scale = &scales_[k * n_dims_];
    Values squares{};
    long i = 0;
    for (; i + kLanes<T> <= n_dims_; i += kLanes<T>) {
      const Values deviation = simd::load<Values>(descriptor + i) - simd::load<Values>(mean + i);
      const Values z = deviation * simd::load<Values>(scale + i);
      squares = simd::fma(z, z, squares);
    }
    double sum = simd::sum(squares);
    for (; i < n_dims_; ++i) {
      const T z = (descriptor[i] - mean[i]) * scale[i];
      sum += z * z;
    }
    return heights_[k] - 0.5 * sum;
  }
  // add() for N vectors from number i on. Deviations are scaled when they are summed.
  template <int N>
  void add_at(const T* descriptors, const Match* from, const Match* to, long k, long i, T* first, T* second) const {
    using Values = simd::Vec<T>;
    const T *means = &means_[k * n_dims_ + i], *scales = &scales_[k * n_dims_ + i];
    Values mean[N], a[N] = {}, b[N] = {}, total{};
    for (int v = 0; v < N; ++v) mean[v] = simd::load<Values>(means + v * kLanes<T>);
    for (const Match* match = from; match != to; ++match) {
      const Values posterior = simd::splat<Values>(T(match->posterior));
      const T* descriptor = descriptors + match->row * n_dims_ + i;
      total += posterior;
      for (int v = 0; v < N; ++v) {
        const Values deviation = simd::load<Values>(descriptor + v * kLanes<T>) - mean[v];
        const Values share = posterior * deviation;
        a[v] += share;
        b[v] = simd::fma(share, deviation, b[v]);
      }
    }
    for (int v = 0; v < N; ++v) {
      const Values scale = simd::load<Values>(scales + v * kLanes<T>);
      T *to_first = first + i + v * kLanes<T>, *to_second = second + i + v * kLanes<T>;
      simd::store(to_first, simd::fma(a[v], scale, simd::load<Values>(to_first)));
      simd::store(to_second, simd::fma(b[v] * scale, scale, simd::load<Values>(to_second)) - total);
    }
  }
};

// So many descriptors are matched before any is summed: a component's sums then stay in registers for several.
constexpr long kGroup = 10 * kBlock;

float largest(const float* densities, long n) {
  V most = simd::load(densities);
  for (long k = kLanes<float>; k < n; k += kLanes<float>) most = simd::max(most, simd::load(densities + k));
  return simd::largest(most);
}

// The descriptors, of no more than kGroup, that may belong to each component.
class Matches {
 public:
  explicit Matches(long n_components)
      : counts_(n_components), found_(n_components), posteriors_(simd::round_up(n_components, kLanes<float>)),
        matches_(new Match[n_components * kGroup]) {}
  // Takes the components of a row whose likelihoods are not negligible in their sum, with the posteriors as
  // refine(row, components, n, posteriors) leaves them.
  template <class Refine>
  void find(const float* likelihoods, float sum, long row, Refine&& refine) {
    const long n = long(counts_.size());
    const V least = simd::splat<V>(kNegligible * sum);
    const float scale = 1 / sum;
    long *counts = counts_.data(), *found = found_.data(), n_found = 0;
    float* posteriors = posteriors_.data();
    Match* matches = matches_.get();
    for (long start = 0; start < n; start += kBits)  // one loop for many: how often it turns is hard to predict
      for (uint64_t left = above(likelihoods + start, n - start, least); left; left &= left - 1) {
        const long k = start + __builtin_ctzll(left);
        found[n_found] = k, posteriors[n_found++] = likelihoods[k] * scale;
      }
    refine(row, found, n_found, posteriors);
    for (long i = 0; i < n_found; ++i) matches[found[i] * kGroup + counts[found[i]]++] = {row, posteriors[i]};
  }
  // Calls take(component, from, to) for those of one component in one cell, in the order of rows, and forgets them.
  template <class Take>
  void take_all(const int64_t* cells, Take&& take) {
    for (size_t k = 0; k < counts_.size(); ++k) {
      const Match *from = &matches_[k * kGroup], *end = from + counts_[k];
      while (from != end) {
        const int64_t cell = cells[from->row];
        const Match* to = std::find_if(from, end, [&](const Match& match) { return cells[match.row] != cell; });
        take(long(k), from, to);
        from = to;
      }
      counts_[k] = 0;
    }
  }

 private:
  static constexpr long kBits = 64;
  std::vector<long> counts_, found_;
  std::vector<float> posteriors_;
  std::unique_ptr<Match[]> matches_;

  static uint64_t above(const float* likelihoods, long n, V least) {
    uint64_t mask = 0;
    for (long k = 0; k < std::min(kBits, n); k += kLanes<float>)
      mask |= uint64_t(simd::bits(simd::load(likelihoods + k) > least)) << k;
    return n < kBits ? mask & ((uint64_t(1) << n) - 1) : mask;  // what fills up the last vector is no component
  }
};

template <class T>
void add_descriptors(const T* descriptors, long n, const int64_t* cells, const Mixture<T>& mixture, T* counts,
                     T* sums) {
  const long n_dims = mixture.n_dims(), padded = mixture.padded(), n_components = mixture.n_components();
  const long depth = 2 * n_dims, half = n_components * n_dims;
  std::vector<float> prepared(kBlock * depth), densities(kBlock * padded);
  Matches matches(n_components);
  const auto refine = [&](long row, const long* components, long n_found, float* posteriors) {
    if constexpr (std::is_same_v<T, double>)
      if (n_found > 1) mixture.refine(descriptors + row * n_dims, components, n_found, posteriors);
  };
  for (long start = 0; start < n; start += kBlock) {
    const long end = std::min(start + kBlock, n);
    for (long r = start; r < end; ++r) mixture.prepare(descriptors + r * n_dims, &prepared[(r - start) * depth]);
    mixture.densities(prepared.data(), densities.data());
    // Step by step for all of them: while one waits for what it depends on, others go on.
    float most[kBlock], totals[kBlock];
    for (long r = 0; r < end - start; ++r) most[r] = largest(&densities[r * padded], padded);
    for (long r = 0; r < end - start; ++r) totals[r] = exponentiate(&densities[r * padded], padded, most[r]);
    for (long r = 0; r < end - start; ++r) matches.find(&densities[r * padded], totals[r], start + r, refine);
    if (end < n && end % kGroup != 0) continue;
    matches.take_all(cells, [&](long k, const Match* from, const Match* to) {
      const int64_t cell = cells[from->row];
      T* first = sums + cell * 2 * half + k * n_dims;
      for (const Match* match = from; match != to; ++match) counts[cell * n_components + k] += match->posterior;
      mixture.add(descriptors, from, to, k, first, first + half);
    });
  }
}

template <class T>
using Points = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Cells = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Counts = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Sums = nb::ndarray<T, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

template <class T>
void fisher_sums(Points<T> descriptors, Cells cells, Vector weights, Matrix means, Matrix variances, Counts<T> counts,
                 Sums<T> sums) {
  const size_t n_components = means.shape(0), n_dims = means.shape(1);
  const long n = long(descriptors.shape(0));
  const int64_t n_cells = int64_t(sums.shape(0)), *cell = cells.data();
  if (descriptors.shape(1) != n_dims || long(cells.shape(0)) != n || weights.shape(0) != n_components ||
      variances.shape(0) != n_components || variances.shape(1) != n_dims || int64_t(counts.shape(0)) != n_cells ||
      counts.shape(1) != n_components || sums.shape(1) != 2 || sums.shape(2) != n_components ||
      sums.shape(3) != n_dims || n_components < 1 ||
      !std::all_of(cell, cell + n, [&](int64_t c) { return c >= 0 && c < n_cells; }))
    throw std::invalid_argument("fisher_sums: descriptors, cells, mixture, counts and sums do not fit together");
  nb::gil_scoped_release release;
  std::fill_n(counts.data(), counts.size(), T(0));
  std::fill_n(sums.data(), sums.size(), T(0));
  const Mixture<T> mixture(weights.data(), means.data(), variances.data(), long(n_components), long(n_dims));
  add_descriptors(descriptors.data(), n, cell, mixture, counts.data(), sums.data());
}

}  // namespace

void bind_fisher_vector(nb::module_& m) {
  const auto bind = [&](auto function) {
    m.def("fisher_sums", function, nb::arg("descriptors").noconvert(), nb::arg("cells").noconvert(),
          nb::arg("weights").noconvert(), nb::arg("means").noconvert(), nb::arg("variances").noconvert(),
          nb::arg("counts").noconvert(), nb::arg("sums").noconvert());
  };
  bind(&fisher_sums<float>);
  bind(&fisher_sums<double>);
}
