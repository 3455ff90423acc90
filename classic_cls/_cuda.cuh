// What the CUDA kernels share. The loader puts this text in place of its #include.
//
// As in the C++ kernels, a multiply-add is fused only where the code says fma: sums are those of every other compiler.
// No sum of floats is atomic: the same input gives the same bytes.
#pragma once

// The sum over a warp's lanes, always in the same order; every lane gets it.
__device__ inline float warp_sum(float value) {
  for (int distance = warpSize / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// Some kernels give every item to one warp. Threads per block must then be a multiple of warpSize.
__device__ inline int lane() { return threadIdx.x % warpSize; }
__device__ inline size_t first_item() { return (size_t(blockIdx.x) * blockDim.x + threadIdx.x) / warpSize; }
__device__ inline size_t item_stride() { return size_t(gridDim.x) * blockDim.x / warpSize; }

// i / d of numbers from 0 to a million, where `inverse` is 1.f / d.
__device__ inline int quotient(int i, float inverse) { return int((i + 0.5f) * inverse); }

// i / d of numbers from 0 to a million. Of a number that it knows, the compiler makes a better division itself.
__device__ inline int quotient(int i, int d) { return __builtin_constant_p(d) ? i / d : quotient(i, 1.f / d); }

// The same number, of which the compiler knows nothing: so that it leaves sums as they are written.
__device__ inline unsigned opaque(unsigned x) {
  asm("" : "+r"(x));
  return x;
}
