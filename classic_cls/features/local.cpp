// What encoders do to the numbers of an image in the end, in place.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cmath>

#include "_simd.h"

namespace nb = nanobind;
using simd::kLanes;
using V = simd::Vec<float>;
using Bits = simd::Vec<int32_t>;

namespace {

using Values = nb::ndarray<float, nb::c_contig, nb::device::cpu>;  // of any number of dimensions

// The root of each magnitude, with its sign.
void signed_root(Values values) {
  float* x = values.data();
  const long n = long(values.size());
  nb::gil_scoped_release release;
  long i = 0;
  for (; i + kLanes<float> <= n; i += kLanes<float>) {
    const V v = simd::load(x + i);
    simd::store(x + i, (V)((Bits)simd::sqrt(simd::abs(v)) | ((Bits)v & INT32_MIN)));
  }
  for (; i < n; ++i) x[i] = std::copysign(std::sqrt(std::fabs(x[i])), x[i]);
}

float length(const float* x, long n) {
  V squares{};
  long i = 0;
  for (; i + kLanes<float> <= n; i += kLanes<float>) {
    const V v = simd::load(x + i);
    squares = simd::fma(v, v, squares);
  }
  float sum = simd::sum(squares);
  for (; i < n; ++i) sum += x[i] * x[i];
  return std::sqrt(sum);
}

// Each row along the last dimension divided by its length; zeros stay as they are.
void unit_rows(Values rows) {
  if (rows.ndim() == 0) throw std::invalid_argument("unit_rows: a number has no rows");
  float* x = rows.data();
  const long n = long(rows.shape(rows.ndim() - 1)), size_of_all = long(rows.size());
  nb::gil_scoped_release release;
  for (const float* end = x + size_of_all; x != end; x += n) {
    const float size = length(x, n);
    for (long i = 0; size > 0 && i < n; ++i) x[i] /= size;
  }
}

}  // namespace

void bind_local(nb::module_& m) {
  m.def("signed_root", &signed_root, nb::arg("values").noconvert());
  m.def("unit_rows", &unit_rows, nb::arg("rows").noconvert());
}
