// Dense SIFT on a GPU: the conventions and the numbers of dense_sift.cpp. The loader defines Pixel (unsigned char or
// float), CHANNELS (1 or 3), SPACING and REACH: g (see below), and a bin's size in units of it.
//
// A thread block takes a tile, some rows and columns of descriptors. Their bins are centred on nodes, every g-th pixel
// down and across, g = gcd(step, bin size). Of each stretch of g pixels in a row it takes, for each of 8 directions, the
// sum of the votes and their first moment: from those of the stretches around a node follows what a triangle filter
// gives, across and then down. So a vote is cast once, whatever the bin size. Then 8 threads put a descriptor together.
#include "_cuda.cuh"

constexpr int BIN_SIZE = REACH * SPACING, DIRECTIONS = 8, BINS = 4, TEAM = 8;  // threads that share a descriptor

// The votes of a stretch of pixels: their sum, and the sum of votes times their places, 0 to g - 1.
struct alignas(8) Stretch {
  float sum, moment;

  __device__ void add(float vote, float place) { sum += vote, moment = fmaf(place, vote, moment); }
};

struct Plan {
  int height, width, step;
  int down, across, tile_rows, tile_cols, tiles_down, tiles_across;  // descriptors of an image and of a tile; tiles
  int fetched, band, pitch;  // rows of pixels that are fetched, and that are worked on, at a time; numbers in a row
  int apart;                 // stretches of the next direction are so many further

  __device__ int hop() const { return step / SPACING; }
};

struct Tile {
  int image, row, col, rows, cols, top, left, nodes_down, nodes_across;

  __device__ Tile(const Plan& plan, int i) {
    const int strip = plan.tiles_across == 1 ? i : i / plan.tiles_across;  // a division takes 25 instructions
    image = plan.tiles_down == 1 ? strip : strip / plan.tiles_down;
    row = (strip - image * plan.tiles_down) * plan.tile_rows, rows = min(plan.tile_rows, plan.down - row);
    col = (i - strip * plan.tiles_across) * plan.tile_cols, cols = min(plan.tile_cols, plan.across - col);
    top = row * plan.step - BIN_SIZE, left = col * plan.step - BIN_SIZE;  // of the first stretch
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
  int top, left, pitch;

  __device__ int place(int y, int x) const { return (y - top) * pitch + x - left; }
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
  const int across = (tile.nodes_across + 2 * REACH - 1) * SPACING;
  const int top = within(first, plan.height) - 1, bottom = within(first + rows - 1, plan.height) + 2;
  const int left = within(tile.left, plan.width) - 1, right = within(tile.left + across - 1, plan.width) + 2;
  const Picture picture{top, left, plan.pitch};

  const int first_row = max(top, 0), height = min(bottom, plan.height) - first_row;
  const int first_col = max(left, 0), width = min(right, plan.width) - first_col;
  const Pixel* const from = image.pixels + (first_row * plan.width + first_col) * CHANNELS;
  float* const to = numbers + picture.place(first_row, first_col);
  constexpr int AT_ONCE = 8;  // pixels on their way
  const int threads = min(width, int(blockDim.x)), down = blockDim.x / threads;  // take a row; at once
  const int row = quotient(threadIdx.x, 1.f / threads), first_x = threadIdx.x - row * threads;
  const int hop = opaque(down * plan.width * CHANNELS), jump = opaque(down * plan.pitch);  // to a thread's next pixel
  for (int x = first_x; x < width; x += threads)
#pragma unroll 1
    for (int y = row < down ? row : height; y < height; y += AT_ONCE * down) {
      const Pixel* const here = from + (y * plan.width + x) * CHANNELS;
      float* const there = to + y * plan.pitch + x;
      const int count = height - y;
      float grays[AT_ONCE];
      for (int k = 0; k < AT_ONCE; ++k)
        if (k * down < count) grays[k] = gray(here + k * hop);
      for (int k = 0; k < AT_ONCE; ++k)
        if (k * down < count) there[k * jump] = grays[k];
    }
  // Then what lies around it: twice a row, and twice a column.
  const int around[] = {top < 0 ? right - left : 0, bottom > plan.height ? right - left : 0,  // rows, columns
                        left < 0 ? bottom - top : 0, right > plan.width ? bottom - top : 0};
  for (int i = threadIdx.x; i < around[0] + around[1] + around[2] + around[3]; i += blockDim.x) {
    const int columns = i - around[0] - around[1];
    const bool is_row = columns < 0, is_first = is_row ? i < around[0] : columns < around[2];
    const int along = is_row ? (is_first ? i : i - around[0]) : is_first ? columns : columns - around[2];
    const int y = is_row ? (is_first ? -1 : plan.height) : top + along;
    const int x = is_row ? left + along : is_first ? -1 : plan.width;
    numbers[picture.place(y, x)] = image.at(y, x);
  }
  return picture;
}

// --- Votes ------------------------------------------------------------------------------------------------------------

// A thread's stretch, for each direction. Neighbouring threads' lie side by side, and those of the next direction so far
// on that lanes, which all take an even or all an odd one, use different banks.
struct Directions {
  char* first;
  unsigned apart;  // bytes

  __device__ Stretch& operator[](int direction) const { return *(Stretch*)(first + direction * apart); }
};

// Shares the gradient's magnitude between the nearest multiple of 90 degrees and the nearest odd one of 45.
__device__ inline void vote(float gx, float gy, float place, const Directions& directions) {
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
  directions[axis].add(magnitude - to_diagonal, place);
  directions[diagonal].add(to_diagonal, place);
}

// A thread takes a stretch of pixels. Votes beyond the border are those of the border.
__device__ inline void vote_for(const Picture& picture, const char* numbers, const Plan& plan, const Tile& tile,
                                int first, int rows, char* stretches) {
  const int across = tile.nodes_across + 2 * REACH - 1;
  const float per_row = 1.f / across;
  const unsigned apart = opaque(plan.apart * sizeof(Stretch));
  const int pitch = opaque(picture.pitch * sizeof(float));
  for (int i = threadIdx.x; i < rows * across; i += blockDim.x) {
    const int row = quotient(i, per_row), col = i - row * across, x = tile.left + col * SPACING;
    const int pixels = opaque(4 * picture.place(within(first + row, plan.height), 0));
    const Directions own{stretches + i * sizeof(Stretch), apart};
    for (int k = 0; k < DIRECTIONS; ++k) own[k] = {0, 0};
#pragma unroll(SPACING <= 8 ? SPACING : 4)
    for (int place = 0; place < SPACING; ++place) {
      const int pixel = pixels + 4 * within(x + place, plan.width);
      const float* const here = (const float*)(numbers + pixel);
      const float above = *(const float*)(numbers + (pixel - pitch));
      const float below = *(const float*)(numbers + (pixel + pitch));
      vote(here[1] - here[-1], below - above, place, own);
    }
  }
}

// --- Bins -------------------------------------------------------------------------------------------------------------

// What the stretches on either side of a node give to it: votes count by how far they are from one bin size away.
__device__ inline float before(const Stretch& stretch, int k) {
  return k == 0 ? stretch.moment : fmaf(k * SPACING, stretch.sum, stretch.moment);
}
__device__ inline float after(const Stretch& stretch, int k) {
  return fmaf((REACH - k) * SPACING, stretch.sum, -stretch.moment);
}

// What a row gives to the node that begins with the stretches `around`.
__device__ inline float across(const Stretch* around) {
  float sum = 0;
  for (int k = 0; k < REACH; ++k) sum += before(around[k], k) + after(around[REACH + k], k);
  return sum;
}

// A thread takes one direction of a column of nodes, and the rows are stretches for the nodes above and below. The first
// row is number `place` of those that `node` is the last to be reached by.
__device__ inline void add(const Stretch* stretches, const Plan& plan, const Tile& tile, int node, int place, int rows,
                           float* bins) {
  const int size = tile.nodes_across * DIRECTIONS, pitch = tile.nodes_across + 2 * REACH - 1;
  const float inverse = 1.f / tile.nodes_across;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const int direction = quotient(i, inverse), col = i - direction * tile.nodes_across;
    const Stretch* around = stretches + direction * plan.apart + col;
    float* own = bins + node * size + col * DIRECTIONS + direction;
    for (int row = 0, at = place, last = node; row < rows; at = 0, ++last, own += size) {
      const int count = min(SPACING - at, rows - row);
      Stretch down{0, 0};
      if (SPACING <= 8 && count == SPACING) {  // as nearly always
        for (int k = 0; k < SPACING; ++k, around += pitch) down.add(across(around), k);
      } else {
        for (int k = 0; k < count; ++k, around += pitch) down.add(across(around), at + k);
      }
      row += count;
      for (int k = 0; k < REACH; ++k) {
        if (last - k >= 0 && last - k < tile.nodes_down) own[-k * size] += before(down, k);
        if (last - REACH - k >= 0 && last - REACH - k < tile.nodes_down) own[-(REACH + k) * size] += after(down, k);
      }
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
  const float scale = window[member / 2] / (float(BIN_SIZE) * BIN_SIZE), per_row = 1.f / tile.cols;
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
extern "C" __global__ void dense_sift(const Pixel* images, int height, int width, int step, int down, int across,
                                      int tile_rows, int tile_cols, int tiles_down, int tiles_across, int fetched,
                                      int band, int pitch, int apart, int gray_size, const float* window,
                                      float least_mass, int root, int first, int n_descriptors, float* descriptors) {
  extern __shared__ float4 memory[];
  const Plan plan{height,     width,        step,    down, across, tile_rows, tile_cols,
                  tiles_down, tiles_across, fetched, band, pitch,  apart};
  const Tile tile(plan, blockIdx.x);
  float* const bins = (float*)memory;
  float* const numbers = bins + tile.nodes_down * tile.nodes_across * DIRECTIONS;
  Stretch* const stretches = (Stretch*)(numbers + gray_size);
  const Image image{images + size_t(tile.image) * height * width * CHANNELS, height, width};

  for (int i = threadIdx.x; i < tile.nodes_down * tile.nodes_across * DIRECTIONS / 4; i += blockDim.x)
    memory[i] = {0, 0, 0, 0};  // the bins
  const int end = (tile.nodes_down + 2 * REACH - 1) * SPACING;
  Picture picture;
  for (int y = 0, until = 0; y < end; y += band) {
    if (y >= until) {
      until = y + fetched;
      picture = fetch(image, plan, tile, tile.top + y, min(fetched, end - y), numbers);
      __syncthreads();
    }
    const int rows = min(band, end - y), node = y / SPACING;
    vote_for(picture, (const char*)numbers, plan, tile, tile.top + y, rows, (char*)stretches);
    __syncthreads();
    add(stretches, plan, tile, node, y - node * SPACING, rows, bins);
    __syncthreads();
  }
  descriptors += (size_t(tile.image) * n_descriptors + first) * 128;
  describe(bins, plan, tile, window, least_mass, root, descriptors);
}
