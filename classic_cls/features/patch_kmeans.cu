// Features of learned patches on a GPU: the conventions of patch_kmeans.cpp. The loader defines Pixel (unsigned char or
// float), ACTIVATION, and IN_SHARED (whether a cell's sums are kept in shared memory).
//
// The caller multiplies the patches that patch_rows lays out with the dictionary. patch_pool turns the products into
// responses, and takes their means over cells; responses are written nowhere.
#include "_cuda.cuh"

enum Activation { TRIANGLE, SOFT_THRESHOLD, HARD };

constexpr int SIGNS = ACTIVATION == SOFT_THRESHOLD ? 2 : 1;
constexpr int MOST_WARPS = 32;  // of a thread block

__device__ inline float unit(unsigned char pixel) { return float(pixel) / 255; }
__device__ inline float unit(float pixel) { return pixel; }

// Subtracts a patch's mean and divides by its standard deviation, which `epsilon` keeps from 0. A warp takes a patch.
extern "C" __global__ void patch_rows(const Pixel* images, int n_images, int height, int width, int channels,
                                      int patch_height, int patch_width, int step, float epsilon, float* patches) {
  const int down = (height - patch_height) / step + 1, across = (width - patch_width) / step + 1;
  const int run = patch_width * channels, depth = patch_height * run;
  for (size_t item = first_item(); item < size_t(n_images) * down * across; item += item_stride()) {
    const size_t y = item / across % down * step, x = item % across * step, image = item / across / down;
    const Pixel* first = images + ((image * height + y) * width + x) * channels;
    const auto pixel = [&](int i) { return unit(first[size_t(i / run) * width * channels + i % run]); };
    float sum = 0, squares = 0;
    for (int i = lane(); i < depth; i += warpSize) sum += pixel(i);
    const float mean = warp_sum(sum) / depth;
    for (int i = lane(); i < depth; i += warpSize) squares += (pixel(i) - mean) * (pixel(i) - mean);
    const float scale = 1 / sqrtf(warp_sum(squares) / depth + epsilon);
    for (int i = lane(); i < depth; i += warpSize) patches[item * depth + i] = (pixel(i) - mean) * scale;
  }
}

// What each warp found of a patch. Two of these take turns: so one barrier a patch is enough.
struct Found {
  float values[MOST_WARPS];
  int entries[MOST_WARPS];
};

// The products of a patch with the entries, each short of the entry's own half squared length by its offset; and the
// patch's squared length.
struct Patch {
  const float *products, *offsets;
  float length;

  __device__ float product(int k) const { return products[k] + offsets[k]; }
  __device__ float distance(int k) const { return sqrtf(fmaxf(fmaf(product(k), -2.f, length), 0.f)); }
};

// How much nearer an entry is than the average entry, or 0.
__device__ inline void add_triangle(const Patch& patch, int n_entries, Found& found, float* sums) {
  float sum = 0;
  for (int k = threadIdx.x; k < n_entries; k += blockDim.x) sum += patch.distance(k);
  sum = warp_sum(sum);
  if (lane() == 0) found.values[threadIdx.x / warpSize] = sum;
  __syncthreads();
  sum = 0;
  for (int warp = 0; warp < blockDim.x / warpSize; ++warp) sum += found.values[warp];
  const float mean = sum / n_entries;
  for (int k = threadIdx.x; k < n_entries; k += blockDim.x) sums[k] += fmaxf(mean - patch.distance(k), 0.f);
}

// 1 for the nearest entry, the first of equals.
__device__ inline void add_hard(const Patch& patch, int n_entries, Found& found, float* sums) {
  float score = -3e38f;
  int best = 0;  // an entry in any case, were all products NaN
  const auto take = [&](float its_score, int its) {
    if (its_score > score || (its_score == score && its < best)) score = its_score, best = its;
  };
  for (int k = threadIdx.x; k < n_entries; k += blockDim.x) take(patch.product(k), k);
  for (int apart = warpSize / 2; apart > 0; apart /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, score, apart);
    take(other, __shfl_xor_sync(0xffffffffu, best, apart));
  }
  if (lane() == 0) found.values[threadIdx.x / warpSize] = score, found.entries[threadIdx.x / warpSize] = best;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < blockDim.x / warpSize; ++warp) take(found.values[warp], found.entries[warp]);
  sums[best] += 1;
}

// By how much the product exceeds alpha, and in the second half by how much its opposite does.
__device__ inline void add_soft_threshold(const Patch& patch, int n_entries, float alpha, float* sums) {
  for (int k = threadIdx.x; k < n_entries; k += blockDim.x) {
    sums[k] += fmaxf(patch.product(k) - alpha, 0.f);
    sums[n_entries + k] += fmaxf(-patch.product(k) - alpha, 0.f);
  }
}

// A thread block takes the patches of a cell one after the other, and its threads share the entries. The cells of a grid
// of grid_rows x grid_cols are written from `first_cell` on, of n_cells that an image has in all.
extern "C" __global__ void patch_pool(const float* products, int down, int across, int n_entries, const float* offsets,
                                      const float* lengths, float alpha, int grid_rows, int grid_cols, int first_cell,
                                      int n_cells, float* features) {
  extern __shared__ float memory[];
  __shared__ Found found[2];
  const int grid_cells = grid_rows * grid_cols, n_responses = SIGNS * n_entries;
  const size_t cell = blockIdx.x % grid_cells, image = blockIdx.x / grid_cells;
  const size_t row = cell / grid_cols, top = row * down / grid_rows, bottom = (row + 1) * down / grid_rows;
  const size_t col = cell % grid_cols, left = col * across / grid_cols, right = (col + 1) * across / grid_cols;
  float* feature = features + (image * n_cells + first_cell + cell) * n_responses;
  float* sums = IN_SHARED ? memory : feature;
  for (int k = threadIdx.x; k < n_responses; k += blockDim.x) sums[k] = 0;
  __syncthreads();
  int turn = 0;
  for (size_t y = top; y < bottom; ++y)
    for (size_t x = left; x < right; ++x, turn ^= 1) {
      const size_t i = (image * down + y) * across + x;
      const Patch patch = {products + i * n_entries, offsets, ACTIVATION == TRIANGLE ? lengths[i] : 0};
      if (ACTIVATION == TRIANGLE) add_triangle(patch, n_entries, found[turn], sums);
      if (ACTIVATION == SOFT_THRESHOLD) add_soft_threshold(patch, n_entries, alpha, sums);
      if (ACTIVATION == HARD) add_hard(patch, n_entries, found[turn], sums);
    }
  __syncthreads();
  for (int k = threadIdx.x; k < n_responses; k += blockDim.x)
    feature[k] = sums[k] / ((bottom - top) * (right - left));
}
