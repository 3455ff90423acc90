// As many numbers as one register holds: GCC and Clang vector extensions, and the few operations they lack.
//
// A vector supports + - * / and comparisons lane by lane; a comparison gives a mask (all ones or zeros per lane), and
// `mask ? a : b` selects. The width follows the instruction set that the file is compiled for.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace simd {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

#if defined(__FMA__) || defined(__aarch64__)
constexpr bool kHasFma = true;
#else
constexpr bool kHasFma = false;
#endif

template <class T, int Bytes = kBytes>
struct VecOf {
  typedef T type __attribute__((vector_size(Bytes)));
};
template <class T>
using Vec = typename VecOf<T>::type;
typedef float Float4 __attribute__((vector_size(16)));

template <class T>
constexpr int kLanes = kBytes / int(sizeof(T));

constexpr long round_up(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }

template <class V = Vec<float>, class T>
inline V load(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class T>
inline void store(T* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class V, class T>
inline V splat(T x) {
  return x - V{};
}
// `a * b + c`, rounded once; twice where the hardware has no fused multiply-add.
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

inline Vec<float> sqrt(Vec<float> v) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX__)
  return (Vec<float>)_mm256_sqrt_ps((__m256)v);
#elif defined(__x86_64__)
  return (Vec<float>)_mm_sqrt_ps((__m128)v);
#else
  for (int i = 0; i < kLanes<float>; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}
inline Vec<double> sqrt(Vec<double> v) {
#if defined(__AVX512F__)
  return (Vec<double>)_mm512_sqrt_pd((__m512d)v);
#elif defined(__AVX__)
  return (Vec<double>)_mm256_sqrt_pd((__m256d)v);
#else
  for (int i = 0; i < kLanes<double>; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

inline Vec<float> abs(Vec<float> v) { return (Vec<float>)((Vec<int32_t>)v & INT32_MAX); }
inline Vec<float> min(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
  return (Vec<float>)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (Vec<float>)_mm_min_ps((__m128)a, (__m128)b);
#else
  return a < b ? a : b;
#endif
}
inline Vec<float> max(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
  return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (Vec<float>)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

// e to the power v for v from -87 to 0, to 2e-7 of it; below that as for -87.
//
// v = n ln 2 + r: a polynomial (that of Cephes) for e^r, and n goes into the exponent. Adding 1.5 * 2^23 rounds to n,
// which then stands in the last bits.
inline Vec<float> exp(Vec<float> v) {
  using V = Vec<float>;
  const auto c = [](float x) { return splat<V>(x); };
  v = max(v, c(-87.f));
  const V shifted = fma(v, c(1.44269504f), c(12582912.f)), n = shifted - c(12582912.f);
  const V r = fma(n, c(2.12194440e-4f), fma(n, c(-0.693359375f), v));
  V p = fma(c(1.9875691500e-4f), r, c(1.3981999507e-3f));
  p = fma(p, r, c(8.3334519073e-3f));
  p = fma(p, r, c(4.1665795894e-2f));
  p = fma(p, r, c(1.6666665459e-1f));
  p = fma(p, r, c(5.0000001201e-1f));
  p = fma(p, r * r, r) + c(1.f);
  return (V)((Vec<int32_t>)p + ((Vec<int32_t>)shifted << 23));
}

// The lanes I... of a and b laid end to end.
#if defined(__clang__) || __GNUC__ >= 12
#define CLASSIC_CLS_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CLASSIC_CLS_PICK(a, b, ...) __builtin_shuffle(a, b, simd::VecOf<int32_t, 16>::type{__VA_ARGS__})
#endif

// (a0 + a1, a2 + a3, b0 + b1, b2 + b3), in each 128 bits of wider vectors.
inline Float4 pair_sums(Float4 a, Float4 b) {
  return CLASSIC_CLS_PICK(a, b, 0, 2, 4, 6) + CLASSIC_CLS_PICK(a, b, 1, 3, 5, 7);
}
#if defined(__AVX512F__)
inline Vec<float> pair_sums(Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm512_shuffle_ps((__m512)a, (__m512)b, 0x88) +
         (Vec<float>)_mm512_shuffle_ps((__m512)a, (__m512)b, 0xdd);
}
#elif defined(__AVX__)
inline Vec<float> pair_sums(Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm256_hadd_ps((__m256)a, (__m256)b);
}
#endif

// Turns four rows of four into columns.
inline void transpose(Float4 (&r)[4]) {
  const Float4 a = CLASSIC_CLS_PICK(r[0], r[1], 0, 4, 1, 5), b = CLASSIC_CLS_PICK(r[2], r[3], 0, 4, 1, 5);
  const Float4 c = CLASSIC_CLS_PICK(r[0], r[1], 2, 6, 3, 7), d = CLASSIC_CLS_PICK(r[2], r[3], 2, 6, 3, 7);
  r[0] = CLASSIC_CLS_PICK(a, b, 0, 1, 4, 5);
  r[1] = CLASSIC_CLS_PICK(a, b, 2, 3, 6, 7);
  r[2] = CLASSIC_CLS_PICK(c, d, 0, 1, 4, 5);
  r[3] = CLASSIC_CLS_PICK(c, d, 2, 3, 6, 7);
}

// Sum of the lanes, always in the same order.
template <class V>
inline float sum(V v) {
  Float4 part[sizeof(V) / sizeof(Float4)];
  __builtin_memcpy(part, &v, sizeof v);
  Float4 total = part[0];
  for (size_t i = 1; i < sizeof(V) / sizeof(Float4); ++i) total += part[i];
  total = pair_sums(total, total);
  return total[0] + total[1];
}

inline double sum(Vec<double> v) {
  double part[kLanes<double>];
  store(part, v);
  for (int n = kLanes<double> / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) part[i] += part[i + n];
  return part[0];
}

template <class V>
inline auto largest(V v) {
  using Four = typename VecOf<std::decay_t<decltype(v[0])>, 16>::type;
  Four part[sizeof(V) / sizeof(Four)];
  __builtin_memcpy(part, &v, sizeof v);
  Four most = part[0];
  for (size_t i = 1; i < sizeof(V) / sizeof(Four); ++i) most = part[i] > most ? part[i] : most;
  const auto left = most[0] > most[1] ? most[0] : most[1], right = most[2] > most[3] ? most[2] : most[3];
  return left > right ? left : right;
}

// The first `count` lanes of v, and the others of `rest`.
template <class V>
inline V first_lanes(V v, int count, V rest) {
  constexpr int n = sizeof(V) / sizeof(float);
  typename VecOf<int32_t, sizeof(V)>::type lane;
  for (int i = 0; i < n; ++i) lane[i] = i;
  return lane < count ? v : rest;
}

// Is any lane of a mask set?
inline bool any(Vec<int64_t> mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask);
#elif defined(__AVX__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  return mask[0] | mask[1];
#endif
}


// One bit per lane of a mask, the first lane's the lowest.
inline unsigned bits(Vec<int32_t> mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
#elif defined(__AVX__)
  return unsigned(_mm256_movemask_ps((__m256)mask));
#elif defined(__x86_64__)
  return unsigned(_mm_movemask_ps((__m128)mask));
#else
  unsigned found = 0;
  for (int i = 0; i < kLanes<float>; ++i) found |= unsigned(mask[i] & 1) << i;
  return found;
#endif
}

// Whether gather_bits is one fast instruction. AMD's before Zen 3 have it, but slow: AVX-512 tells them apart.
#if defined(__BMI2__) && defined(__AVX512F__)
constexpr bool kGathersBits = true;
inline uint64_t gather_bits(uint64_t x, uint64_t chosen) { return _pext_u64(x, chosen); }
#else
constexpr bool kGathersBits = false;
inline uint64_t gather_bits(uint64_t x, uint64_t chosen) {
  uint64_t bits = 0;
  for (int k = 63; k >= 0; --k)
    if (chosen >> k & 1) bits = bits << 1 | (x >> k & 1);
  return bits;
}
#endif

// Eight bytes as a number, on x86 the first the least significant.
inline uint64_t load_bytes(const uint8_t* p) {
  uint64_t x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

}  // namespace simd
