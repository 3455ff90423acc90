// Projects rows onto axes, in float or in double: a matrix product that rounds a row alike whatever rows are beside it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>

#include "_axes.h"
#include "_gemm.h"

namespace nb = nanobind;
using gemm::kBlock;
using gemm::kColumns;
using simd::kLanes;
using simd::Vec;

namespace {

// to[r] = axes rows[r] + offsets
void project_rows(const float* rows, long n_rows, const float* axes, const float* offsets, long n_axes, long n_dims,
                  float* to) {
  const gemm::Panels panels(axes, n_axes, n_dims);
  std::vector<Vec<float>> bias(2 * panels.count());
  std::copy_n(offsets, n_axes, reinterpret_cast<float*>(bias.data()));
  for (long start = 0; start < n_rows; start += kBlock)
    for (long p = 0; p < panels.count(); ++p) {
      const long n_columns = std::min<long>(kColumns, n_axes - p * kColumns);
      gemm::multiply(rows + start * n_dims, std::min(kBlock, n_rows - start), n_dims, n_dims, panels[p], bias[2 * p],
                     bias[2 * p + 1], [&](long r, Vec<float> a, Vec<float> b) {
                       float both[kColumns];
                       simd::store(both, a), simd::store(both + kLanes<float>, b);
                       std::copy_n(both, n_columns, to + (start + r) * n_axes + p * kColumns);
                     });
    }
}

void project_rows(const float* rows, long n_rows, const float* axes, const double* offsets, long n_axes, long n_dims,
                  double* to) {
  const Axes columns(axes, n_axes, n_dims);
  std::vector<double> together(Axes::kTogether * n_dims), unused(n_axes);
  for (long start = 0; start < n_rows; start += Axes::kTogether) {
    const long n = std::min(Axes::kTogether, n_rows - start);
    std::copy_n(rows + start * n_dims, n * n_dims, together.data());
    double* out[Axes::kTogether];
    for (long r = 0; r < Axes::kTogether; ++r) {
      out[r] = r < n ? to + (start + r) * n_axes : unused.data();
      std::copy_n(offsets, n_axes, out[r]);
    }
    columns.add_products(together.data(), out);
  }
}

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Output = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class T>
void project(Matrix rows, Matrix axes, Vector<T> offsets, Output<T> out) {
  if (rows.shape(1) != axes.shape(1) || offsets.shape(0) != axes.shape(0) || out.shape(0) != rows.shape(0) ||
      out.shape(1) != axes.shape(0))
    throw std::invalid_argument("project: the shapes of rows, axes, offsets and out do not fit together");
  nb::gil_scoped_release release;
  project_rows(rows.data(), long(rows.shape(0)), axes.data(), offsets.data(), long(axes.shape(0)),
               long(axes.shape(1)), out.data());
}

}  // namespace

void bind_pca(nb::module_& m) {
  const auto bind = [&](auto function) {
    m.def("project", function, nb::arg("rows").noconvert(), nb::arg("axes").noconvert(),
          nb::arg("offsets").noconvert(), nb::arg("out").noconvert());
  };
  bind(&project<float>);
  bind(&project<double>);
}
