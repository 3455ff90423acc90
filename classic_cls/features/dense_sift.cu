// Dense SIFT on a GPU: the conventions and the numbers of dense_sift.cpp. The loader defines Pixel (unsigned char or
// float), CHANNELS (1 or 3) and REACH, a bin's size in units of g (see below).
//
// A thread block takes a tile, some rows and columns of descriptors. Their bins are centred on nodes, every g-th pixel
// down and across, g = gcd(step, bin size). Of each stretch of g pixels in a row it takes, for each of 8 directions, the
// sum of the votes and their first moment: from those of the stretches around a node follows what a triangle filter
// gives, across and then down. So a vote is cast once, whatever the bin size. Then 8 threads put a descriptor together.
#include "_cuda.cuh"

constexpr int DIRECTIONS = 8, BINS = 4, TEAM = 8;  // threads that share a descriptor

// The votes of a stretch of pixels: their sum, and the sum of votes times their places, 0 to g - 1.
struct alignas(8) Stretch {
  float sum, moment;

  __device__ void add(float vote, float place) { sum += vote, moment = fmaf(place, vote, moment); }
};

struct Plan {
  int height, width, step, bin_size, spacing;  // between nodes
  int down, across, tile_rows, tile_cols, tiles_down, tiles_across;  // descriptors of an image and of a tile; tiles
  int band, gray_pitch, pitch;  // rows of pixels at a time; numbers of a row in shared memory

  __device__ int hop() const { return step / spacing; }
};

struct Tile {
  int image, row, col, rows, cols, top, left, nodes_down, nodes_across;

  __device__ Tile(const Plan& plan, int i) {
    const int strip = i / plan.tiles_across;
    image = strip / plan.tiles_down;
    row = (strip - image * plan.tiles_down) * plan.tile_rows, rows = min(plan.tile_rows, plan.down - row);
    col = (i - strip * plan.tiles_across) * plan.tile_cols, cols = min(plan.tile_cols, plan.across - col);
    top = row * plan.step - plan.bin_size, left = col * plan.step - plan.bin_size;  // of the first stretch
    nodes_down = (rows - 1) * plan.hop() + 3 * REACH + 1;
    nodes_across = (cols - 1) * plan.hop() + 3 * REACH + 1;
  }
};

// --- Gray, 0 to 255, which float32 x / 255 meets exactly --------------------------------------------------------------

__device__ inline float level(unsigned char pixel) { return pixel; }
__device__ inline float level(float pixel) { return pixel * 255; }
__device__ inline float gray(const Pixel* pixel) {
  if (CHANNELS == 1) return level(pixel[0]);
  return 0.299f * level(pixel[0]) + 0.587f * level(pixel[1]) + 0.114f * level(pixel[CHANNELS - 1]);
}

__device__ inline int within(int i, int size) { return min(max(i, 0), size - 1); }

// A part of an image in gray, from row `top` and column `left` on. It goes on for a pixel beyond the border, where the
// gradient of the border, which is twice the difference of two neighbours there, is a difference like all others.
struct Picture {
  float* numbers;
  int height, width, top, left, pitch;

  __device__ const float* at(int y, int x) const { return numbers + (y - top) * pitch + x - left; }
};

struct Image {
  const Pixel* pixels;
  int height, width;

  __device__ float inside(int y, int x) const { return gray(pixels + (y * width + x) * CHANNELS); }
  __device__ float at(int y, int x) const {
    const int row = within(y, height), col = within(x, width);
    if (row == y && col == x) return inside(y, x);
    const int next_row = within(2 * row - y, height), next_col = within(2 * col - x, width);
    return 2 * inside(row, col) - inside(next_row, next_col);
  }
};

// What is needed for the rows from `first` on, which may lie beyond the border.
__device__ inline Picture fetch(const Image& image, const Plan& plan, const Tile& tile, int first, int rows,
                                float* numbers) {
  const int across = (tile.nodes_across + 2 * REACH - 1) * plan.spacing;
  const int top = within(first, plan.height) - 1, down = within(first + rows - 1, plan.height) + 2 - top;
  const int left = within(tile.left, plan.width) - 1, cols = within(tile.left + across - 1, plan.width) + 2 - left;
  const float per_row = 1.f / cols;
  for (int i = threadIdx.x; i < down * cols; i += blockDim.x) {
    const int row = quotient(i, per_row), col = i - row * cols;
    numbers[row * plan.gray_pitch + col] = image.at(top + row, left + col);
  }
  return {numbers, plan.height, plan.width, top, left, plan.gray_pitch};
}

// --- Votes ------------------------------------------------------------------------------------------------------------

// Shares the gradient's magnitude between the nearest multiple of 90 degrees and the nearest odd one of 45. Directions
// lie `pitch` apart.
__device__ inline void vote(float gx, float gy, float place, Stretch* directions, int pitch) {
  const float ax = fabsf(gx), ay = fabsf(gy), magnitude = sqrtf(fmaf(gx, gx, gy * gy));
  const float t = __fdividef(fminf(ax, ay), fmaxf(fmaxf(ax, ay), 1e-30f)), s = t * t;
  float q = -0.00848296470940113f;  // with t, the arctangent of t, over 45 degrees
  q = fmaf(q, s, 0.03373689576983452f);
  q = fmaf(q, s, -0.06700018793344498f);
  q = fmaf(q, s, 0.10114569216966629f);
  q = fmaf(q, s, -0.15096591413021088f);
  q = fmaf(q, s, 0.2732343077659607f);
  const float to_diagonal = magnitude * fmaf(t - t * s, q, t);
  const int axis = ay < ax ? (gx < 0 ? 4 : 0) : (gy < 0 ? 6 : 2);
  const int diagonal = gy < 0 ? (gx < 0 ? 5 : 7) : (gx < 0 ? 3 : 1);
  directions[axis * pitch].add(magnitude - to_diagonal, place);
  directions[diagonal * pitch].add(to_diagonal, place);
}

// A thread takes a stretch of pixels. Votes beyond the border are those of the border.
__device__ inline void vote_for(const Picture& picture, const Plan& plan, const Tile& tile, int first, int rows,
                                Stretch* stretches) {
  const int across = tile.nodes_across + 2 * REACH - 1;
  const float per_row = 1.f / across;
  for (int i = threadIdx.x; i < rows * across; i += blockDim.x) {
    const int row = quotient(i, per_row), col = i - row * across, x = tile.left + col * plan.spacing;
    const float* pixels = picture.at(within(first + row, plan.height), 0);
    Stretch* own = stretches + row * DIRECTIONS * plan.pitch + col;
    for (int k = 0; k < DIRECTIONS; ++k) own[k * plan.pitch] = {0, 0};
    for (int place = 0; place < plan.spacing; ++place) {
      const float* pixel = pixels + within(x + place, plan.width);
      vote(pixel[1] - pixel[-1], pixel[picture.pitch] - pixel[-picture.pitch], place, own, plan.pitch);
    }
  }
}

// --- Bins -------------------------------------------------------------------------------------------------------------

// What the stretches on either side of a node give to it: votes count by how far they are from one bin size away.
__device__ inline float before(const Stretch& stretch, int k, int spacing) {
  return k == 0 ? stretch.moment : fmaf(k * spacing, stretch.sum, stretch.moment);
}
__device__ inline float after(const Stretch& stretch, int k, int spacing) {
  return fmaf((REACH - k) * spacing, stretch.sum, -stretch.moment);
}

// A thread takes one direction of a column of nodes, and the rows are stretches for the nodes above and below.
__device__ inline void add(const Stretch* stretches, const Plan& plan, const Tile& tile, int first, int rows,
                           float* bins) {
  const int size = tile.nodes_across * DIRECTIONS, spacing = plan.spacing;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const Stretch* around = stretches + i % DIRECTIONS * plan.pitch + i / DIRECTIONS;
    int node = (first - tile.top) / spacing, place = (first - tile.top) % spacing;  // the last that it reaches
    Stretch down{0, 0};
    for (int row = 0; row < rows; ++row, around += DIRECTIONS * plan.pitch) {
      float across = 0;
      for (int k = 0; k < REACH; ++k) across += before(around[k], k, spacing) + after(around[REACH + k], k, spacing);
      down.add(across, place);
      if (++place < spacing && row + 1 < rows) continue;
      for (int k = 0; k < REACH; ++k) {
        if (node - k >= 0 && node - k < tile.nodes_down) bins[(node - k) * size + i] += before(down, k, spacing);
        if (node - REACH - k >= 0 && node - REACH - k < tile.nodes_down)
          bins[(node - REACH - k) * size + i] += after(down, k, spacing);
      }
      down = {0, 0}, place = 0, ++node;
    }
  }
}

// --- Descriptors ------------------------------------------------------------------------------------------------------

__device__ inline float team_sum(float value) {
  for (int distance = TEAM / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// One thread's part of a descriptor: half of the directions in the bins of a column.
struct Part {
  float v[BINS][4];

  __device__ Part(const float* bins, size_t row, const float* weights) {
    for (int b = 0; b < BINS; ++b) {
      const float4 four = *(const float4*)(bins + b * row);
      v[b][0] = four.x * weights[b], v[b][1] = four.y * weights[b];
      v[b][2] = four.z * weights[b], v[b][3] = four.w * weights[b];
    }
  }

  // RootSIFT is the same on square roots: clipping commutes with them, and L1 becomes L2.
  __device__ void normalise(float least_mass, int root) {
    float mass = 0, energy = 0, clipped = 0;
    for (int i = 0; i < 4 * BINS; ++i) mass += v[i / 4][i % 4], energy = fmaf(v[i / 4][i % 4], v[i / 4][i % 4], energy);
    const float fifth = 0.2f * sqrtf(team_sum(energy));
    const float ceiling = team_sum(mass) < least_mass ? 0 : root ? sqrtf(fifth) : fifth;
    for (int i = 0; i < 4 * BINS; ++i) {
      float& number = v[i / 4][i % 4];
      number = fminf(root ? sqrtf(number) : number, ceiling);
      clipped = fmaf(number, number, clipped);
    }
    const float length = sqrtf(team_sum(clipped)), factor = length > 0 ? 1 / length : 0;
    for (int i = 0; i < 4 * BINS; ++i) v[i / 4][i % 4] *= factor;
  }

  __device__ void write(float* to) const {
    for (int b = 0; b < BINS; ++b) ((float4*)to)[b * TEAM] = {v[b][0], v[b][1], v[b][2], v[b][3]};
  }
};

__device__ inline void describe(const float* bins, const Plan& plan, const Tile& tile, const float* window,
                                float least_mass, int root, float* descriptors) {
  const int member = threadIdx.x % TEAM, hop = plan.hop(), count = tile.rows * tile.cols;
  const float scale = window[member / 2] / (float(plan.bin_size) * plan.bin_size), per_row = 1.f / tile.cols;
  const float weights[BINS] = {window[0] * scale, window[1] * scale, window[2] * scale, window[3] * scale};
  for (int first = 0; first < count; first += blockDim.x / TEAM) {  // all threads go round: they meet in sums
    const int i = first + threadIdx.x / TEAM, item = min(i, count - 1), row = quotient(item, per_row);
    const int col = item - row * tile.cols, node = row * hop * tile.nodes_across + col * hop + member / 2 * REACH;
    Part part(bins + node * DIRECTIONS + member % 2 * 4, REACH * tile.nodes_across * DIRECTIONS, weights);
    part.normalise(least_mass, root);
    if (i < count) part.write(descriptors + (size_t(tile.row + row) * plan.across + tile.col + col) * 128 + member * 4);
  }
}

// --- A tile -----------------------------------------------------------------------------------------------------------

// Writes descriptors `first`, `first` + 1, ... of each image, which has n_descriptors in all.
extern "C" __global__ void dense_sift(const Pixel* images, int height, int width, int step, int bin_size, int spacing,
                                      int down, int across, int tile_rows, int tile_cols, int tiles_down,
                                      int tiles_across, int band, int gray_pitch, int pitch, int gray_size,
                                      const float* window, float least_mass, int root, int first, int n_descriptors,
                                      float* descriptors) {
  extern __shared__ float4 memory[];
  const Plan plan{height,    width,     step,       bin_size,     spacing, down,       across,
                  tile_rows, tile_cols, tiles_down, tiles_across, band,    gray_pitch, pitch};
  const Tile tile(plan, blockIdx.x);
  float* const bins = (float*)memory;
  float* const numbers = bins + tile.nodes_down * tile.nodes_across * DIRECTIONS;
  Stretch* const stretches = (Stretch*)(numbers + gray_size);
  const Image image{images + size_t(tile.image) * height * width * CHANNELS, height, width};

  for (int i = threadIdx.x; i < tile.nodes_down * tile.nodes_across * DIRECTIONS; i += blockDim.x) bins[i] = 0;
  const int end = tile.top + (tile.nodes_down + 2 * REACH - 1) * spacing;
  for (int y = tile.top; y < end; y += band) {
    const int rows = min(band, end - y);
    const Picture picture = fetch(image, plan, tile, y, rows, numbers);
    __syncthreads();
    vote_for(picture, plan, tile, y, rows, stretches);
    __syncthreads();
    add(stretches, plan, tile, y, rows, bins);
    __syncthreads();
  }
  descriptors += (size_t(tile.image) * n_descriptors + first) * 128;
  describe(bins, plan, tile, window, least_mass, root, descriptors);
}
