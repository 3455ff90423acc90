// Features of learned patches on a GPU: the conventions of patch_kmeans.cpp. The loader defines Pixel (unsigned char or
// float).
//
// The caller multiplies the patches that patch_rows lays out with the dictionary. One of the activations then turns the
// products into responses, in place, and patch_pool takes their means over cells. A warp takes a patch, a row of
// `depth` or `n_entries` numbers.
#include "_cuda.cuh"

__device__ inline float unit(unsigned char pixel) { return float(pixel) / 255; }
__device__ inline float unit(float pixel) { return pixel; }

// Subtracts a patch's mean and divides by its standard deviation, which `epsilon` keeps from 0.
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

// How much nearer an entry is than the average entry, or 0. `lengths` are the patches' squared lengths; a product is
// short of the entry's own half squared length by its offset.
extern "C" __global__ void patch_triangle(float* responses, int n_patches, int n_entries, const float* offsets,
                                          const float* lengths) {
  for (size_t item = first_item(); item < n_patches; item += item_stride()) {
    float* response = responses + item * n_entries;
    float sum = 0;
    for (int k = lane(); k < n_entries; k += warpSize) {
      response[k] = sqrtf(fmaxf(fmaf(response[k] + offsets[k], -2.f, lengths[item]), 0.f));
      sum += response[k];
    }
    const float mean = warp_sum(sum) / n_entries;
    for (int k = lane(); k < n_entries; k += warpSize) response[k] = fmaxf(mean - response[k], 0.f);
  }
}

// 1 for the nearest entry, the first of equals, and 0 for others.
extern "C" __global__ void patch_hard(float* responses, int n_patches, int n_entries, const float* offsets) {
  for (size_t item = first_item(); item < n_patches; item += item_stride()) {
    float* response = responses + item * n_entries;
    float score = -3e38f;
    int best = n_entries;
    for (int k = lane(); k < n_entries; k += warpSize)
      if (response[k] + offsets[k] > score) score = response[k] + offsets[k], best = k;
    for (int distance = warpSize / 2; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, score, distance);
      const int its = __shfl_xor_sync(0xffffffffu, best, distance);
      if (other > score || (other == score && its < best)) score = other, best = its;
    }
    for (int k = lane(); k < n_entries; k += warpSize) response[k] = k == best;
  }
}

// By how much the product exceeds alpha, and in the second half by how much its opposite does.
extern "C" __global__ void patch_soft_threshold(const float* products, int n_patches, int n_entries,
                                                const float* offsets, float alpha, float* responses) {
  for (size_t item = first_item(); item < n_patches; item += item_stride())
    for (int k = lane(); k < n_entries; k += warpSize) {
      const float product = products[item * n_entries + k] + offsets[k];
      responses[2 * item * n_entries + k] = fmaxf(product - alpha, 0.f);
      responses[(2 * item + 1) * n_entries + k] = fmaxf(-product - alpha, 0.f);
    }
}

// A thread takes the mean of one response over the patches of a cell. The cells of a grid of grid_rows x grid_cols are
// written from `first_cell` on, of n_cells that an image has in all.
extern "C" __global__ void patch_pool(const float* responses, int n_images, int down, int across, int n_responses,
                                      int grid_rows, int grid_cols, int first_cell, int n_cells, float* features) {
  const size_t grid_cells = size_t(grid_rows) * grid_cols, count = n_images * grid_cells * n_responses;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    const size_t k = i % n_responses, cell = i / n_responses % grid_cells, image = i / n_responses / grid_cells;
    const size_t row = cell / grid_cols, col = cell % grid_cols;
    const size_t top = row * down / grid_rows, bottom = (row + 1) * down / grid_rows;
    const size_t left = col * across / grid_cols, right = (col + 1) * across / grid_cols;
    float sum = 0;
    for (size_t y = top; y < bottom; ++y)
      for (size_t x = left; x < right; ++x) sum += responses[((image * down + y) * across + x) * n_responses + k];
    features[(image * n_cells + first_cell + cell) * n_responses + k] = sum / ((bottom - top) * (right - left));
  }
}
