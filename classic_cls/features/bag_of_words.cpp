// Nearest visual word of each descriptor.
//
// argmin |x - c|^2 = argmax (x.c - |c|^2 / 2): a matrix product, whose largest entry per row is picked out of the
// registers. Of words equally near, the first wins.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>

#include "_gemm.h"

namespace nb = nanobind;
using simd::kLanes;
using simd::Vec;

namespace {

// Rows that go through all panels together: their descriptors and one panel stay in the L1 cache.
constexpr long kBlock = 2 * gemm::kRows;

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
      const auto step = [&](auto n, long r) {
        gemm::step<n>(rows + (start + r) * n_dims, n_dims, n_dims, panels[p], bias[2 * p], bias[2 * p + 1],
                      [&](int i, Vec<float> a, Vec<float> b) {
                        best[r + i].offer(a, left);
                        best[r + i].offer(b, right);
                      });
      };
      long r = 0;
      for (; r + gemm::kRows <= size; r += gemm::kRows) step(std::integral_constant<int, gemm::kRows>{}, r);
      for (; r < size; ++r) step(std::integral_constant<int, 1>{}, r);
    }
    for (long r = 0; r < size; ++r) labels[start + r] = best[r].winner();
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

}  // namespace

void bind_bag_of_words(nb::module_& m) {
  m.def("assign", &assign, nb::arg("descriptors").noconvert(), nb::arg("words").noconvert(),
        nb::arg("labels").noconvert());
}
