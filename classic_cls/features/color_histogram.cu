// Colour histograms on a GPU: the conventions and the numbers of color_histogram.cpp. The loader defines CHANNELS (1 or
// 3), RUN (the pixels that a thread takes at a time, 4 or 1; a row of a cell has a multiple of them), SPACE, JOINT and
// whether a histogram is short enough to be IN_SHARED memory; else it is in the workspace.
//
// A thread block takes a cell of an image: its threads go over the pixels and raise counters. (Many neighbours have the
// same colour, and the same counter. In shared memory the hardware adds up a warp's increments before.) Counts are
// integers, so the order of the threads cannot be seen.
#include "_cuda.cuh"

enum Space { RGB, HSV, LAB, OPPONENT, GRAY };
enum Norm { NONE, COUNTS_L1, COUNTS_L2, HELLINGER };

struct Levels {
  int c[3];
};

// OpenCV's fixed point. The rounded quotients are exact, though division is not: none comes near a half.
__device__ inline Levels to_hsv(int r, int g, int b) {
  const int v = max(r, max(g, b)), d = v - min(r, min(g, b));
  const int position = v == r ? g - b : v == g ? b - r + 2 * d : r - g + 4 * d;
  const int saturation = d * int(rintf(__fdividef(1044480, max(v, 1)))) + 2048;
  const int turn = position * int(rintf(__fdividef(122880, max(d, 1)))) + 2048;
  return {{(turn < 0 ? turn + 180 * 4096 : turn) >> 12, saturation >> 12, v}};
}

// CIE's f: the cube root, and a straight line near 0; in the steps of color_histogram.cpp, for the same rounding.
__device__ inline float lab_curve(float t) {
  const float x = fmaxf(t, 0.008856f);
  float root = __int_as_float(int(float(__float_as_int(x)) * (1 / 3.f)) + 709921077);
  for (int halley = 0; halley < 2; ++halley) {
    const float cube = root * root * root;
    root *= __fdiv_rn(cube + 2 * x, 2 * cube + x);
  }
  return t > 0.008856f ? root : 7.787f * t + 16 / 116.f;
}

__device__ inline Levels to_lab(float r, float g, float b) {
  const float x = lab_curve((0.412453f * r + 0.357580f * g + 0.180423f * b) * (1 / 0.950456f));
  const float y = lab_curve(0.212671f * r + 0.715160f * g + 0.072169f * b);
  const float z = lab_curve((0.019334f * r + 0.119193f * g + 0.950227f * b) * (1 / 1.088754f));
  return {{int((116 * y - 16) * 2.55f + 0.5f), int(500 * (x - y) + 128.5f), int(200 * (y - z) + 128.5f)}};
}

// `light` is the linear light of each level of sRGB.
__device__ inline Levels levels_of(int r, int g, int b, const float* light) {
  switch (SPACE) {
    case HSV: return to_hsv(r, g, b);
    case LAB: return to_lab(light[r], light[g], light[b]);
    case OPPONENT: return {{(r - g + 256) >> 1, (r + g - 2 * b + 512) >> 2, (r + g + b + 1) / 3}};
    case GRAY: return {{(9798 * r + 19235 * g + 3735 * b + 16384) >> 15, 0, 0}};
    default: return {{r, g, b}};
  }
}

// Where part `i` of `n` begins, as even as they can be.
__device__ inline int edge(int i, int size, int n) { return n == 1 ? i * size : int((long long)i * size / n); }

struct Cell {
  int top, left, height, width;

  __device__ Cell(int index, int image_height, int image_width, int rows, int cols) {
    const int i = cols == 1 ? index : index / cols, j = index - i * cols;
    top = edge(i, image_height, rows), left = edge(j, image_width, cols);
    height = edge(i + 1, image_height, rows) - top, width = edge(j + 1, image_width, cols) - left;
    if (cols == 1) width *= height, height = 1;  // one long row
  }
};

// scale[c] turns a level into its bin, floor(level * bins / levels). A joint histogram's counter is the sum of bin times
// stride[c]; the others' histograms begin at first[c].
struct Binning {
  int scale[3], stride[3], first[3];

  __device__ int bin(const Levels& levels, int c) const { return levels.c[c] * scale[c] >> 15; }
};

// The channels of a run of pixels.
struct Run {
  unsigned char at[RUN * CHANNELS];

  __device__ explicit Run(const unsigned char* from) {
    for (int i = 0; i < RUN * CHANNELS; ++i)
      at[i] = RUN == 4 ? ((const unsigned*)from)[i / 4] >> 8 * (i % 4) : from[i];
  }
};

__device__ inline void count(const Levels& levels, const Binning& binning, unsigned int* counters) {
  int index = 0;
  for (int c = 0; c < (SPACE == GRAY ? 1 : 3); ++c)
    if (JOINT) index += binning.bin(levels, c) * binning.stride[c];
    else atomicAdd(counters + binning.first[c] + binning.bin(levels, c), 1u);
  if (JOINT) atomicAdd(counters + index, 1u);
}

// `image` begins with the cell.
__device__ inline void count(const unsigned char* image, int width, const Cell& cell, const Binning& binning,
                             const float* light, unsigned int* counters) {
  constexpr int last = CHANNELS - 1;
  const int across = cell.width / RUN;
  int row = threadIdx.x >= across, col = threadIdx.x, down = 0, right = blockDim.x;
  if (cell.height > 1) {
    down = blockDim.x / across, right = blockDim.x - down * across;
    row = threadIdx.x / across, col = threadIdx.x - row * across;
  }
#pragma unroll 2
  while (row < cell.height) {
    const Run run(image + (size_t(row) * width + size_t(col) * RUN) * CHANNELS);
    for (int i = 0; i < RUN; ++i) {
      const unsigned char* pixel = run.at + i * CHANNELS;
      count(levels_of(pixel[0], pixel[min(1, last)], pixel[last], light), binning, counters);
    }
    row += down, col += right;
    if (col >= across) ++row, col -= across;
  }
}

// a / b to the nearest, where `inverse` is 1 / b to the nearest (P. Markstein, "Computation of elementary functions on
// the IBM RISC System/6000 processor", 1990).
__device__ inline float divided(float a, float b, float inverse) {
  float q = a * inverse;
  for (int step = 0; step < 2; ++step) q = fmaf(fmaf(-q, b, a), inverse, q);
  return q;
}

__device__ inline unsigned long long sum_of_squares(const unsigned int* counters, int n_bins) {
  __shared__ unsigned long long total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  unsigned long long own = 0;
  for (int k = threadIdx.x; k < n_bins; k += blockDim.x) own += (unsigned long long)counters[k] * counters[k];
  for (int distance = warpSize / 2; distance > 0; distance /= 2) own += __shfl_xor_sync(0xffffffffu, own, distance);
  if (lane() == 0) atomicAdd(&total, own);
  __syncthreads();
  return total;
}

extern "C" __global__ void color_histogram(const unsigned char* images, int height, int width, int rows, int cols,
                                           int norm, int n_bins, const int* binning, const float* light,
                                           unsigned int* workspace, float* features) {
  extern __shared__ unsigned int memory[];
  unsigned int* counters = IN_SHARED ? memory : workspace + size_t(blockIdx.x) * n_bins;
  for (int k = threadIdx.x; k < n_bins; k += blockDim.x) counters[k] = 0;
  __syncthreads();
  const int image = rows * cols == 1 ? blockIdx.x : blockIdx.x / (rows * cols);
  const Cell cell(blockIdx.x - image * (rows * cols), height, width, rows, cols);
  const unsigned char* pixels = images + (size_t(image) * height * width + cell.top * width + cell.left) * CHANNELS;
  count(pixels, width, cell, *(const Binning*)binning, light, counters);
  __syncthreads();
  float size = 1;
  if (norm == COUNTS_L2) size = float(sqrt(double(sum_of_squares(counters, n_bins))));
  else if (norm != NONE) size = float(cell.height * cell.width * (JOINT || SPACE == GRAY ? 1 : 3));
  const float inverse = __fdiv_rn(1, size);
  float* to = features + size_t(blockIdx.x) * n_bins;
  for (int k = threadIdx.x; k < n_bins; k += blockDim.x) {
    const float share = divided(counters[k], size, inverse);
    to[k] = norm == HELLINGER ? __fsqrt_rn(share) : share;
  }
}
