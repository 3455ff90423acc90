// A small matrix product that hands every result to its caller while it is still in a register.
//
// OpenBLAS would be as fast, but how it rounds a row depends on the rows beside it, and what follows (an argmax, a
// square root, a pooling) would have to fetch the product from memory again. Here a row's sums run over the same
// numbers in the same order whatever the batch.
#pragma once
#include <type_traits>
#include <vector>

#include "_simd.h"

namespace gemm {

// One step of the product: kRows rows against a panel of kColumns columns, as many as the registers hold.
constexpr int kRows = simd::kBytes == 64 ? 12 : simd::kBytes == 32 ? 6 : 4;
constexpr int kColumns = 2 * simd::kLanes<float>;

// The columns of a matrix (given as rows: n_columns x depth), kColumns at a time, so that a step reads straight on.
// The last panel is filled up with zeros.
class Panels {
 public:
  Panels(const float* rows, long n_columns, long depth)
      : depth_(depth), count_((n_columns + kColumns - 1) / kColumns), data_(2 * count_ * depth) {
    float* to = reinterpret_cast<float*>(data_.data());
    for (long column = 0; column < n_columns; ++column)
      for (long i = 0; i < depth; ++i)
        to[(column / kColumns * depth + i) * kColumns + column % kColumns] = rows[column * depth + i];
  }
  long count() const { return count_; }
  const simd::Vec<float>* operator[](long panel) const { return data_.data() + 2 * panel * depth_; }

 private:
  long depth_, count_;
  std::vector<simd::Vec<float>> data_;
};

// For each of R rows, `stride` apart: result(r, left, right), the dot products with the panel's columns, plus `left`
// and `right`. Calls meanwhile(0) to meanwhile(2 R - 1) on the way: slow instructions, such as square roots, hide
// behind the products there.
template <int R, class Result, class Meanwhile>
inline void step(const float* rows, long stride, long depth, const simd::Vec<float>* panel, simd::Vec<float> left,
                 simd::Vec<float> right, Result&& result, Meanwhile&& meanwhile) {
  using V = simd::Vec<float>;
  V a[R], b[R];
  for (int r = 0; r < R; ++r) a[r] = left, b[r] = right;
  const auto add_products = [&](long i) {
    const V c = panel[2 * i], d = panel[2 * i + 1];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const V x = simd::splat<V>(rows[r * stride + i]);
      a[r] = simd::fma(x, c, a[r]);
      b[r] = simd::fma(x, d, b[r]);
    }
  };
  const int n_shared = int(depth < 2 * R ? depth : 2 * R);
  for (int i = 0; i < n_shared; ++i) add_products(i), meanwhile(i);
  for (int i = n_shared; i < 2 * R; ++i) meanwhile(i);
  for (long i = n_shared; i < depth; ++i) add_products(i);
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) result(r, a[r], b[r]);
}

template <int R, class Result>
inline void step(const float* rows, long stride, long depth, const simd::Vec<float>* panel, simd::Vec<float> left,
                 simd::Vec<float> right, Result&& result) {
  step<R>(rows, stride, depth, panel, left, right, result, [](int) {});
}

// Rows that go through all panels together: what is known of them and one panel stay in the L1 cache.
constexpr long kBlock = 2 * kRows;

// The products of `n_rows` rows, `stride` apart, with one panel: result(row, left, right), as for step().
template <class Result>
inline void multiply(const float* rows, long n_rows, long stride, long depth, const simd::Vec<float>* panel,
                     simd::Vec<float> left, simd::Vec<float> right, Result&& result) {
  const auto go = [&](auto n, long r) {
    step<n>(rows + r * stride, stride, depth, panel, left, right,
            [&](int i, simd::Vec<float> a, simd::Vec<float> b) { result(r + i, a, b); });
  };
  long r = 0;
  for (; r + kRows <= n_rows; r += kRows) go(std::integral_constant<int, kRows>{}, r);
  for (; r < n_rows; ++r) go(std::integral_constant<int, 1>{}, r);
}

using Lanes = simd::VecOf<int32_t, simd::kBytes>::type;

inline Lanes lane_numbers() {
  Lanes lane;
  for (int i = 0; i < simd::kLanes<float>; ++i) lane[i] = i;
  return lane;
}

// The largest result of a row so far, in each lane, and its column; of equal ones, the first.
struct Best {
  simd::Vec<float> score = simd::splat<simd::Vec<float>>(-INFINITY);
  Lanes column = lane_numbers();
  void offer(simd::Vec<float> candidate, Lanes columns) {
    const auto better = candidate > score;
    score = better ? candidate : score;
    column = better ? columns : column;
  }
  int32_t winner() const {  // the smallest of the best columns; ~ turns their order around
    const auto best = score == simd::splat<simd::Vec<float>>(simd::largest(score));
    return ~simd::largest(best ? ~column : simd::splat<Lanes>(INT32_MIN));
  }
};

}  // namespace gemm
