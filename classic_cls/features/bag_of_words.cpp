// Nearest visual word of each descriptor, or several of them with weights.
//
// argmin |x - c|^2 = argmax (x.c - |c|^2 / 2): a matrix product, whose largest entries per row are picked out of the
// registers. Of words equally near, the first wins.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <numeric>

#include "_gemm.h"

namespace nb = nanobind;
using gemm::kBlock;
using simd::kLanes;
using simd::Vec;

namespace {

// Minus half the squared length of each word; what fills up the last panel can't win.
std::vector<Vec<float>> half_lengths(const float* words, long n_words, long n_dims, long n_panels) {
  std::vector<Vec<float>> bias(2 * n_panels);
  float* to = reinterpret_cast<float*>(bias.data());
  std::fill_n(to, n_panels * gemm::kColumns, -INFINITY);
  for (long k = 0; k < n_words; ++k) {
    double squares = 0;
    for (long i = 0; i < n_dims; ++i) squares += double(words[k * n_dims + i]) * words[k * n_dims + i];
    to[k] = float(-squares / 2);
  }
  return bias;
}

void assign_rows(const float* rows, long n_rows, const float* words, long n_words, long n_dims, int32_t* labels) {
  const gemm::Panels panels(words, n_words, n_dims);
  const auto bias = half_lengths(words, n_words, n_dims, panels.count());
  const gemm::Lanes lane = gemm::lane_numbers();
  gemm::Best best[kBlock];
  for (long start = 0; start < n_rows; start += kBlock) {
    const long size = std::min(kBlock, n_rows - start);
    std::fill_n(best, size, gemm::Best{});
    for (long p = 0; p < panels.count(); ++p) {
      const gemm::Lanes left = lane + int32_t(p * gemm::kColumns), right = left + kLanes<float>;
      gemm::multiply(rows + start * n_dims, size, n_dims, n_dims, panels[p], bias[2 * p], bias[2 * p + 1],
                     [&](long r, Vec<float> a, Vec<float> b) {
                       best[r].offer(a, left);
                       best[r].offer(b, right);
                     });
    }
    for (long r = 0; r < size; ++r) labels[start + r] = best[r].winner();
  }
}

// Takes the largest `n_neighbors` of a row's scores, one after the other; of equal ones, the first.
void take_largest(float* scores, long n, long n_neighbors, int32_t* neighbors) {
  for (long k = 0; k < n_neighbors; ++k) {
    gemm::Best best;
    gemm::Lanes columns = gemm::lane_numbers();
    for (long p = 0; p < n; p += kLanes<float>, columns += kLanes<float>) best.offer(simd::load(scores + p), columns);
    neighbors[k] = best.winner();
    scores[neighbors[k]] = -INFINITY;
  }
}

void find_neighbors(const float* rows, long n_rows, const float* words, long n_words, long n_dims, long n_neighbors,
                    int32_t* neighbors) {
  const gemm::Panels panels(words, n_words, n_dims);
  const auto bias = half_lengths(words, n_words, n_dims, panels.count());
  const long padded = panels.count() * gemm::kColumns;
  std::vector<float> scores(kBlock * padded);
  for (long start = 0; start < n_rows; start += kBlock) {
    const long size = std::min(kBlock, n_rows - start);
    for (long p = 0; p < panels.count(); ++p)
      gemm::multiply(rows + start * n_dims, size, n_dims, n_dims, panels[p], bias[2 * p], bias[2 * p + 1],
                     [&](long r, Vec<float> a, Vec<float> b) {
                       simd::store(&scores[r * padded + p * gemm::kColumns], a);
                       simd::store(&scores[r * padded + p * gemm::kColumns + kLanes<float>], b);
                     });
    for (long r = 0; r < size; ++r)
      take_largest(&scores[r * padded], padded, n_neighbors, neighbors + (start + r) * n_neighbors);
  }
}

// A descriptor's neighbours less the descriptor itself, and their products.
template <class T>
class Differences {
 public:
  Differences(long n_neighbors, long n_dims)
      : n_(n_neighbors), n_dims_(n_dims), stride_(simd::round_up(n_dims, kLanes<T>)), rows_(n_ * stride_) {}
  void read(const float* descriptor, const float* words, const int32_t* neighbors) {
    for (long k = 0; k < n_; ++k) {
      const float* word = words + neighbors[k] * n_dims_;
      for (long i = 0; i < n_dims_; ++i) rows_[k * stride_ + i] = T(word[i]) - T(descriptor[i]);
    }
  }
  T product(long j, long k) const {
    Vec<T> sums{};
    for (long i = 0; i < stride_; i += kLanes<T>)
      sums = simd::fma(simd::load<Vec<T>>(&rows_[j * stride_ + i]), simd::load<Vec<T>>(&rows_[k * stride_ + i]), sums);
    T total = 0;
    for (int i = 0; i < kLanes<T>; ++i) total += sums[i];
    return total;
  }

 private:
  long n_, n_dims_, stride_;
  std::vector<T> rows_;
};

// weight = exp(-beta distance^2), scaled to sum 1.
class Soft {
 public:
  using Number = float;
  Soft(long n_neighbors, double beta) : n_(n_neighbors), beta_(float(beta)) {}
  void weigh(const Differences<float>& differences, float* weights) const {
    for (long k = 0; k < n_; ++k) weights[k] = differences.product(k, k);
    const float least = *std::min_element(weights, weights + n_);
    for (long k = 0; k < n_; ++k) weights[k] = std::exp(-beta_ * (weights[k] - least));
  }

 private:
  long n_;
  float beta_;
};

// The weights, of sum 1, whose mixture of neighbours is nearest to the descriptor: the solution of
// (products + regularization * trace) weights = 1, scaled to sum 1. By Cholesky's method, in double: the matrix may be
// nearly singular.
class Llc {
 public:
  using Number = double;
  Llc(long n_neighbors, double regularization) : n_(n_neighbors), regularization_(regularization), lower_(n_ * n_) {}
  void weigh(const Differences<double>& differences, double* weights) {
    double trace = 0;
    for (long j = 0; j < n_; ++j) {
      for (long k = 0; k <= j; ++k) at(j, k) = differences.product(j, k);
      trace += at(j, j);
    }
    std::fill_n(weights, n_, 1.0);
    if (!(trace > 0)) return;  // all neighbours lie on the descriptor
    for (long j = 0; j < n_; ++j) at(j, j) += regularization_ * trace;
    factorise();
    solve(weights);
  }

 private:
  long n_;
  double regularization_;
  std::vector<double> lower_;

  double& at(long j, long k) { return lower_[j * n_ + k]; }
  void factorise() {
    for (long j = 0; j < n_; ++j)
      for (long k = 0; k <= j; ++k) {
        double rest = at(j, k);
        for (long i = 0; i < k; ++i) rest -= at(j, i) * at(k, i);
        at(j, k) = j == k ? std::sqrt(rest) : rest / at(k, k);
      }
  }
  void solve(double* x) {
    for (long j = 0; j < n_; ++j) {
      for (long i = 0; i < j; ++i) x[j] -= at(j, i) * x[i];
      x[j] /= at(j, j);
    }
    for (long j = n_ - 1; j >= 0; --j) {
      for (long i = j + 1; i < n_; ++i) x[j] -= at(i, j) * x[i];
      x[j] /= at(j, j);
    }
  }
};

template <class Method>
void weigh_rows(Method method, const float* rows, long n_rows, const float* words, long n_dims,
                const int32_t* neighbors, long n_neighbors, float* weights) {
  using T = typename Method::Number;
  Differences<T> differences(n_neighbors, n_dims);
  std::vector<T> exact(n_neighbors);
  for (long r = 0; r < n_rows; ++r) {
    differences.read(rows + r * n_dims, words, neighbors + r * n_neighbors);
    method.weigh(differences, exact.data());
    const T sum = std::accumulate(exact.begin(), exact.end(), T(0));
    for (long k = 0; k < n_neighbors; ++k) weights[r * n_neighbors + k] = float(exact[k] / sum);
  }
}

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void assign(Matrix descriptors, Matrix words, Labels labels) {
  if (descriptors.shape(1) != words.shape(1) || words.shape(0) < 1 || labels.shape(0) != descriptors.shape(0))
    throw std::invalid_argument("assign: the shapes of descriptors, words and labels do not fit together");
  nb::gil_scoped_release release;
  assign_rows(descriptors.data(), long(descriptors.shape(0)), words.data(), long(words.shape(0)),
              long(words.shape(1)), labels.data());
}

using Neighbors = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ConstNeighbors = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Weights = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void nearest_words(Matrix descriptors, Matrix words, Neighbors neighbors) {
  const long n_words = long(words.shape(0)), n_neighbors = long(neighbors.shape(1));
  if (descriptors.shape(1) != words.shape(1) || n_neighbors < 1 || n_neighbors > n_words ||
      neighbors.shape(0) != descriptors.shape(0))
    throw std::invalid_argument("nearest_words: the shapes of descriptors, words and neighbors do not fit together");
  nb::gil_scoped_release release;
  find_neighbors(descriptors.data(), long(descriptors.shape(0)), words.data(), n_words, long(words.shape(1)),
                 n_neighbors, neighbors.data());
}

template <class Method>
void weights_of(Matrix descriptors, Matrix words, ConstNeighbors neighbors, double parameter, Weights weights) {
  const long n = long(descriptors.shape(0)), n_words = long(words.shape(0)), n_neighbors = long(neighbors.shape(1));
  const bool fit = descriptors.shape(1) == words.shape(1) && long(neighbors.shape(0)) == n &&
                   long(weights.shape(0)) == n && long(weights.shape(1)) == n_neighbors && n_neighbors >= 1;
  const int32_t* of = neighbors.data();
  if (!fit || !std::all_of(of, of + n * n_neighbors, [&](int32_t k) { return k >= 0 && k < n_words; }))
    throw std::invalid_argument("weights: descriptors, words, neighbors and weights do not fit together");
  nb::gil_scoped_release release;
  weigh_rows(Method(n_neighbors, parameter), descriptors.data(), n, words.data(), long(words.shape(1)), of,
             n_neighbors, weights.data());
}

template <class Method>
void bind_weights(nb::module_& m, const char* name, const char* parameter) {
  m.def(name, &weights_of<Method>, nb::arg("descriptors").noconvert(), nb::arg("words").noconvert(),
        nb::arg("neighbors").noconvert(), nb::arg(parameter), nb::arg("weights").noconvert());
}

}  // namespace

void bind_bag_of_words(nb::module_& m) {
  m.def("assign", &assign, nb::arg("descriptors").noconvert(), nb::arg("words").noconvert(),
        nb::arg("labels").noconvert());
  m.def("nearest_words", &nearest_words, nb::arg("descriptors").noconvert(), nb::arg("words").noconvert(),
        nb::arg("neighbors").noconvert());
  bind_weights<Soft>(m, "soft_weights", "beta");
  bind_weights<Llc>(m, "llc_weights", "regularization");
}
