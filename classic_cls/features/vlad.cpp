// Sums, over the descriptors of a cell, of their differences from their words.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>

#include "_simd.h"

namespace nb = nanobind;

namespace {

// In the order of the descriptors, so that nothing but the cell's own decide how its sums round.
void add_residuals(const float* descriptors, long n, long n_dims, const float* words, long n_words,
                   const int32_t* labels, const int64_t* cells, float* sums) {
  for (long r = 0; r < n; ++r, descriptors += n_dims) {
    const float* word = words + labels[r] * n_dims;
    float* to = sums + (cells[r] * n_words + labels[r]) * n_dims;
    for (long i = 0; i < n_dims; ++i) to[i] += descriptors[i] - word[i];
  }
}

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Cells = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <class T>
bool all_below(const T* values, long n, T limit) {
  return std::all_of(values, values + n, [&](T value) { return value >= 0 && value < limit; });
}

void residual_sums(Matrix descriptors, Matrix words, Labels labels, Cells cells, Sums sums) {
  const long n = long(descriptors.shape(0)), n_dims = long(words.shape(1)), n_words = long(words.shape(0));
  if (long(descriptors.shape(1)) != n_dims || long(labels.shape(0)) != n || long(cells.shape(0)) != n ||
      long(sums.shape(1)) != n_words || long(sums.shape(2)) != n_dims ||
      !all_below(labels.data(), n, int32_t(n_words)) || !all_below(cells.data(), n, int64_t(sums.shape(0))))
    throw std::invalid_argument("residual_sums: descriptors, words, labels, cells and sums do not fit together");
  nb::gil_scoped_release release;
  std::fill_n(sums.data(), sums.size(), 0.f);
  add_residuals(descriptors.data(), n, n_dims, words.data(), n_words, labels.data(), cells.data(), sums.data());
}

}  // namespace

void bind_vlad(nb::module_& m) {
  m.def("residual_sums", &residual_sums, nb::arg("descriptors").noconvert(), nb::arg("words").noconvert(),
        nb::arg("labels").noconvert(), nb::arg("cells").noconvert(), nb::arg("sums").noconvert());
}
