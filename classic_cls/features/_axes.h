// Projection of rows onto axes in double, each row rounded alike whatever rows are beside it.
#pragma once
#include <algorithm>
#include <vector>

#include "_simd.h"

// Axes, two registers of them side by side.
class Axes {
 public:
  // Rows that are projected at a time, for what is read of the axes to serve them all: as many as the registers hold.
  static constexpr long kTogether = simd::kBytes == 64 ? 8 : 4;
  Axes(const float* axes, long n_axes, long depth)
      : n_axes_(n_axes), depth_(depth), panels_((n_axes + kWide - 1) / kWide * depth * 2) {
    double* to = reinterpret_cast<double*>(panels_.data());
    for (long k = 0; k < n_axes; ++k)
      for (long i = 0; i < depth; ++i) to[(k / kWide * depth + i) * kWide + k % kWide] = axes[k * depth + i];
  }
  // Adds to to[r] the products of the axes with the r-th of kTogether rows.
  void add_products(const double* rows, double* const* to) const {
    const V* panel = panels_.data();
    const long depth = depth_;
    for (long start = 0; start < n_axes_; start += kWide, panel += 2 * depth) {
      V left[kTogether] = {}, right[kTogether] = {};
      for (long i = 0; i < depth; ++i) {
        const V c = panel[2 * i], d = panel[2 * i + 1];
#pragma GCC unroll 8
        for (long r = 0; r < kTogether; ++r) {
          const V x = simd::splat<V>(rows[r * depth + i]);
          left[r] = simd::fma(x, c, left[r]);
          right[r] = simd::fma(x, d, right[r]);
        }
      }
#pragma GCC unroll 8
      for (long r = 0; r < kTogether; ++r) {  // unrolled, too, or the sums would not stay in registers
        double both[kWide];
        simd::store(both, left[r]), simd::store(both + simd::kLanes<double>, right[r]);
        for (long k = start; k < std::min(start + kWide, n_axes_); ++k) to[r][k] += both[k - start];
      }
    }
  }

 private:
  using V = simd::Vec<double>;
  static constexpr long kWide = 2 * simd::kLanes<double>;
  long n_axes_, depth_;
  std::vector<V> panels_;
};
