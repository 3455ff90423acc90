// Dense SIFT on a GPU: the conventions and the numbers of dense_sift.cpp. The loader defines Pixel (unsigned char or
// float).
//
// All bins are centred on nodes, every g-th pixel down and across, g = gcd(step, bin size). sift_rows filters each row
// of pixels' votes along x, at the nodes' columns; sift_bins filters these along y, at the nodes' rows; and in
// sift_descriptors a warp puts a descriptor together. Between them lie 8 directions per node, in global memory.
#include "_cuda.cuh"

constexpr int DIRECTIONS = 8, BINS = 4, RUN = BINS * DIRECTIONS;  // a descriptor is BINS runs, one per row of bins

// An image on the scale 0 to 255, which float32 x / 255 meets exactly.
struct Gray {
  const Pixel* pixels;
  int height, width, channels;

  __device__ static float value(unsigned char pixel) { return pixel; }
  __device__ static float value(float pixel) { return pixel * 255; }
  __device__ float at(int y, int x) const {
    const Pixel* pixel = pixels + (size_t(y) * width + x) * channels;
    if (channels == 1) return value(pixel[0]);
    return 0.299f * value(pixel[0]) + 0.587f * value(pixel[1]) + 0.114f * value(pixel[2]);
  }
  // Twice the gradient; one-sided at the border.
  __device__ float across(int y, int x) const {
    const int left = max(x - 1, 0), right = min(x + 1, width - 1);
    return (at(y, right) - at(y, left)) * (right - left == 2 ? 1 : 2);
  }
  __device__ float down(int y, int x) const {
    const int above = max(y - 1, 0), below = min(y + 1, height - 1);
    return (at(below, x) - at(above, x)) * (below - above == 2 ? 1 : 2);
  }
};

// Shares the gradient's magnitude between the nearest multiple of 90 degrees and the nearest odd one of 45. Directions
// lie `stride` apart.
__device__ inline void vote(float gx, float gy, int stride, float* votes) {
  const float ax = fabsf(gx), ay = fabsf(gy), magnitude = sqrtf(fmaf(gx, gx, gy * gy));
  const float t = fminf(ax, ay) / fmaxf(fmaxf(ax, ay), 1e-30f), s = t * t;
  float q = -0.00848296470940113f;  // with t, the arctangent of t, over 45 degrees
  q = fmaf(q, s, 0.03373689576983452f);
  q = fmaf(q, s, -0.06700018793344498f);
  q = fmaf(q, s, 0.10114569216966629f);
  q = fmaf(q, s, -0.15096591413021088f);
  q = fmaf(q, s, 0.2732343077659607f);
  const float to_diagonal = magnitude * fmaf(t - t * s, q, t);
  const int axis = ay < ax ? (gx < 0 ? 4 : 0) : (gy < 0 ? 6 : 2);
  const int diagonal = gy < 0 ? (gx < 0 ? 5 : 7) : (gx < 0 ? 3 : 1);
  for (int k = 0; k < DIRECTIONS; ++k)
    votes[k * stride] = k == axis ? magnitude - to_diagonal : k == diagonal ? to_diagonal : 0;
}

__device__ inline float triangle(int distance, int bin_size) { return 1 - float(abs(distance)) / bin_size; }

// A thread sums up one direction of one node. The votes that a thread block needs pass through shared memory, as many
// columns at a time as it has threads. Votes beyond the border are those of the border.
extern "C" __global__ void sift_rows(const Pixel* images, int height, int width, int channels, int spacing,
                                     int bin_size, int nodes_across, int n_rows, int blocks_per_row, float* rows) {
  extern __shared__ float votes[];
  const int span = blockDim.x, stride = span | 1;  // odd, so that directions lie in different banks
  const size_t row = blockIdx.x / blocks_per_row;
  const int y = row % n_rows;
  const Gray image{images + row / n_rows * height * width * channels, height, width, channels};
  const int first = blockIdx.x % blocks_per_row * blockDim.x, end = min(first + int(blockDim.x), nodes_across * DIRECTIONS);
  const int left = first / DIRECTIONS * spacing - bin_size + 1, right = (end - 1) / DIRECTIONS * spacing + bin_size;
  const int own = first + threadIdx.x, centre = own / DIRECTIONS * spacing;
  const float* direction = votes + own % DIRECTIONS * stride;
  float sum = 0;
  for (int start = left; start < right; start += span) {
    const int here = min(max(start + int(threadIdx.x), 0), width - 1);
    vote(image.across(y, here), image.down(y, here), stride, votes + threadIdx.x);
    __syncthreads();
    for (int x = max(start, centre - bin_size + 1); x < min(start + span, centre + bin_size); ++x)
      sum = fmaf(triangle(x - centre, bin_size), direction[x - start], sum);
    __syncthreads();
  }
  if (own < end) rows[row * nodes_across * DIRECTIONS + own] = sum;
}

extern "C" __global__ void sift_bins(const float* rows, int n_images, int n_rows, int spacing, int bin_size,
                                     int nodes_down, int nodes_across, float* bins) {
  const size_t width = size_t(nodes_across) * DIRECTIONS, count = n_images * width * nodes_down;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    const float* column = rows + i / width / nodes_down * n_rows * width + i % width;
    const int centre = int(i / width % nodes_down) * spacing;
    float sum = 0;
    for (int y = centre - bin_size + 1; y < centre + bin_size; ++y)
      sum = fmaf(triangle(y - centre, bin_size), column[min(max(y, 0), n_rows - 1) * width], sum);
    bins[i] = sum;
  }
}

// Writes descriptors `first`, `first` + 1, ... of each image, which has n_descriptors in all. RootSIFT is the same on square
// roots: clipping commutes with them, and L1 becomes L2.
extern "C" __global__ void sift_descriptors(const float* bins, int n_images, int nodes_down, int nodes_across,
                                            int reach, int hop, int rows, int cols, const float* window,
                                            float least_mass, int root, int first, int n_descriptors,
                                            float* descriptors) {
  const int bin = lane() / DIRECTIONS, direction = lane() % DIRECTIONS;
  for (size_t item = first_item(); item < size_t(n_images) * rows * cols; item += item_stride()) {
    const size_t image = item / cols / rows, row = item / cols % rows * hop, col = item % cols * hop;
    float v[BINS], mass = 0, energy = 0, clipped = 0;
    for (int b = 0; b < BINS; ++b) {
      const size_t node = (image * nodes_down + row + b * reach) * nodes_across + col + bin * reach;
      const float number = window[b] * window[bin] * bins[node * DIRECTIONS + direction];
      mass += number;
      energy = fmaf(number, number, energy);
      v[b] = root ? sqrtf(number) : number;
    }
    mass = warp_sum(mass);
    energy = warp_sum(energy);
    const float ceiling = mass < least_mass ? 0 : root ? sqrtf(0.2f * sqrtf(energy)) : 0.2f * sqrtf(energy);
    for (int b = 0; b < BINS; ++b) {
      v[b] = fminf(v[b], ceiling);
      clipped = fmaf(v[b], v[b], clipped);
    }
    clipped = warp_sum(clipped);
    const float factor = clipped > 0 ? 1 / sqrtf(clipped) : 0;
    float* to = descriptors + (image * n_descriptors + first + item % (size_t(rows) * cols)) * BINS * RUN + lane();
    for (int b = 0; b < BINS; ++b) to[b * RUN] = v[b] * factor;
  }
}
