// Colour histograms on a GPU: the conventions and the numbers of color_histogram.cpp.
//
// A thread block takes a cell of an image: its threads go over the pixels and raise counters in shared memory, or in
// the workspace where a histogram is too long for that. Counts are integers, so the order of the threads cannot be seen.
#include "_cuda.cuh"

enum Space { RGB, HSV, LAB, OPPONENT, GRAY };
enum Norm { NONE, COUNTS_L1, COUNTS_L2, HELLINGER };

struct Levels {
  int c[3];
};

// OpenCV's fixed point, with the quotients rounded to even: exact in floats.
__device__ inline Levels to_hsv(int r, int g, int b) {
  const int v = max(r, max(g, b)), d = v - min(r, min(g, b));
  const int position = v == r ? g - b : v == g ? b - r + 2 * d : r - g + 4 * d;
  const int saturation = d * int(rintf(1044480.f / max(v, 1))) + 2048;
  const int turn = position * int(rintf(122880.f / max(d, 1))) + 2048;
  return {{(turn < 0 ? turn + 180 * 4096 : turn) >> 12, saturation >> 12, v}};
}

// CIE's f: the cube root, and a straight line near 0; in the steps of color_histogram.cpp, for the same rounding.
__device__ inline float lab_curve(float t) {
  const float x = fmaxf(t, 0.008856f);
  float root = __int_as_float(int(float(__float_as_int(x)) * (1 / 3.f)) + 709921077);
  for (int halley = 0; halley < 2; ++halley) {
    const float cube = root * root * root;
    root *= (cube + 2 * x) / (2 * cube + x);
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
__device__ inline Levels levels_of(int r, int g, int b, int space, const float* light) {
  switch (space) {
    case HSV: return to_hsv(r, g, b);
    case LAB: return to_lab(light[r], light[g], light[b]);
    case OPPONENT: return {{(r - g + 256) >> 1, (r + g - 2 * b + 512) >> 2, (r + g + b + 1) / 3}};
    case GRAY: return {{(9798 * r + 19235 * g + 3735 * b + 16384) >> 15, 0, 0}};
    default: return {{r, g, b}};
  }
}

struct Cell {
  int top, left, height, width;
};

__device__ inline Cell cell_of(int index, int height, int width, int rows, int cols) {
  const long long i = index / cols, j = index % cols;
  const int top = i * height / rows, left = j * width / cols;
  return {top, left, int((i + 1) * height / rows) - top, int((j + 1) * width / cols) - left};
}

// scale[c] turns a level into its bin, floor(level * bins / levels). A joint histogram's counter is the sum of bin times
// stride[c]; the others' histograms begin at first[c].
struct Binning {
  int scale[3], stride[3], first[3];

  __device__ int bin(const Levels& levels, int c) const { return levels.c[c] * scale[c] >> 15; }
};

__device__ inline void count(const unsigned char* image, int width, int channels, const Cell& cell, int space,
                             int n_channels, int joint, const Binning& binning, const float* light,
                             unsigned int* counters) {
  for (int i = threadIdx.x; i < cell.height * cell.width; i += blockDim.x) {
    const size_t at = size_t(cell.top + i / cell.width) * width + cell.left + i % cell.width;
    const unsigned char* pixel = image + at * channels;
    const int last = channels - 1;
    const Levels levels = levels_of(pixel[0], pixel[min(1, last)], pixel[last], space, light);
    int index = 0;
    for (int c = 0; c < n_channels; ++c) {
      if (joint) index += binning.bin(levels, c) * binning.stride[c];
      else atomicAdd(counters + binning.first[c] + binning.bin(levels, c), 1u);
    }
    if (joint) atomicAdd(counters + index, 1u);
  }
}

__device__ inline unsigned long long sum_of_squares(const unsigned int* counters, int n_bins) {
  __shared__ unsigned long long total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  unsigned long long own = 0;
  for (int k = threadIdx.x; k < n_bins; k += blockDim.x) own += (unsigned long long)counters[k] * counters[k];
  atomicAdd(&total, own);
  __syncthreads();
  return total;
}

// `workspace` holds the counters of every cell, or nothing where they fit into shared memory.
extern "C" __global__ void color_histogram(const unsigned char* images, int height, int width, int channels, int space,
                                           int joint, int rows, int cols, int norm, int n_channels, int n_bins,
                                           const int* binning, const float* light, int use_workspace,
                                           unsigned int* workspace, float* features) {
  extern __shared__ unsigned int shared_counters[];
  unsigned int* counters = use_workspace ? workspace + size_t(blockIdx.x) * n_bins : shared_counters;
  for (int k = threadIdx.x; k < n_bins; k += blockDim.x) counters[k] = 0;
  __syncthreads();
  const unsigned char* image = images + size_t(blockIdx.x / (rows * cols)) * height * width * channels;
  const Cell cell = cell_of(blockIdx.x % (rows * cols), height, width, rows, cols);
  count(image, width, channels, cell, space, n_channels, joint, *(const Binning*)binning, light, counters);
  __syncthreads();
  float size = 1;
  if (norm == COUNTS_L2) size = float(sqrt(double(sum_of_squares(counters, n_bins))));
  else if (norm != NONE) size = float(cell.height * cell.width * (joint ? 1 : n_channels));
  float* to = features + size_t(blockIdx.x) * n_bins;
  for (int k = threadIdx.x; k < n_bins; k += blockDim.x) {
    const float share = counters[k] / size;
    to[k] = norm == HELLINGER ? sqrtf(share) : share;
  }
}
