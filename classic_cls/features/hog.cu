// Histograms of oriented gradients on a GPU: the conventions and the numbers of hog.cpp.
//
// The loader defines Pixel (unsigned char, float or double) and Number (float or double), the precision in which
// gradients are compared; hog.cpp says which pictures need double. uint8 x is x in float, and levels[x] in double.
//
// hog_cells: a thread block takes a row of cells. A thread goes down a column of pixels and votes into a histogram of
// its own in shared memory; the columns of each cell are then summed. hog_blocks: a warp takes a block of cells.
//
// No arctangent: the bin is the number of thresholds that the angle has reached. With gy made positive, it has reached
// threshold k where gx / gy is at most a cotangent. The caller finds the cotangent at which scikit-image's angle, rounded
// as it is, changes bins, for either sign of gy: so pixels on a threshold need no case of their own.
#include "_cuda.cuh"

__device__ inline Number value(unsigned char pixel, const Number* levels, int, bool) {
  return sizeof(Number) == 4 ? Number(pixel) : levels[pixel];
}
__device__ inline Number value(double pixel, const Number*, int root, bool) {
  return Number(root ? sqrt(pixel) : pixel);
}
// Where all float32 of an image stand for some k / 255, they are read as that, as in hog.cpp.
__device__ inline Number value(float pixel, const Number* levels, int root, bool of_levels) {
  if (sizeof(Number) == 4) return Number(pixel);
  const double x = pixel;
  return value(of_levels ? rint(x * 255) / 255 : x, levels, root, false);
}

struct Picture {
  const Pixel* pixels;
  int height, width, channels, root;
  const Number* levels;
  bool of_levels;

  __device__ Number at(int y, int x, int c) const {
    return value(pixels[(size_t(y) * width + x) * channels + c], levels, root, of_levels);
  }
};

struct Gradient {
  Number x, y, squared;
};

__device__ inline Gradient gradient(const Picture& picture, int y, int x, int c) {
  const bool inside_x = x > 0 && x + 1 < picture.width, inside_y = y > 0 && y + 1 < picture.height;
  Gradient g;
  g.x = inside_x ? picture.at(y, x + 1, c) - picture.at(y, x - 1, c) : Number(0);
  g.y = inside_y ? picture.at(y + 1, x, c) - picture.at(y - 1, x, c) : Number(0);
  g.squared = g.x * g.x + g.y * g.y;
  return g;
}

// The root of x * x + y * y, rounded once (CUDA's own may be the next number, and here that decides).
__device__ inline double hypotenuse(double x, double y) {
  const double xx = x * x, yy = y * y, sum = xx + yy, root = sqrt(sum);
  const double lost = fma(x, x, -xx) + fma(y, y, -yy) + (xx > yy ? (xx - sum) + yy : (yy - sum) + xx);
  return sum > 0 ? root + (fma(-root, root, sum) + lost) / (2 * root) : 0;
}

// Where two channels are equally strong to within rounding, scikit-image's rounding decides: it compares hypotenuses.
__device__ inline bool stronger(const Gradient& g, const Gradient& best) {
  const bool near = fabs(g.squared - best.squared) <= g.squared * Number(1e-15) && (g.x != best.x || g.y != best.y);
  return near ? hypotenuse(g.x, g.y) > hypotenuse(best.x, best.y) : g.squared > best.squared;
}

__device__ inline Gradient strongest(const Picture& picture, int y, int x) {
  Gradient best = gradient(picture, y, x, 0);
  for (int c = 1; c < picture.channels; ++c) {
    const Gradient g = gradient(picture, y, x, c);
    if (stronger(g, best)) best = g;
  }
  return best;
}

// thresholds[gy >= 0][k] is a cotangent in two parts, whose sum has twice the precision.
__device__ inline int bin(const Gradient& g, const Number* thresholds, int orientations) {
  const bool turn = g.y < 0 || (g.y == 0 && g.x < 0);
  const Number x = turn ? -g.x : g.x, y = turn ? -g.y : g.y;
  const Number* cotangent = thresholds + (g.y < 0 ? 0 : 2 * orientations);
  int reached = 0;
  for (int k = 1; k < orientations; ++k) reached += fma(-cotangent[2 * k], y, x) <= cotangent[2 * k + 1] * y;
  return reached;
}

// Adds the columns first .. last - 1 of the votes, each histogram `stride` apart from bin to bin, to their cells.
__device__ inline void add_columns(const Number* votes, int stride, int first, int last, int cell_cols,
                                   int orientations, Number scale, float* histograms) {
  const int first_cell = first / cell_cols, n_cells = (last - 1) / cell_cols - first_cell + 1;
  for (int i = threadIdx.x; i < n_cells * orientations; i += blockDim.x) {
    const int cell = first_cell + i / orientations, k = i % orientations;
    const int left = max(cell * cell_cols, first), right = min((cell + 1) * cell_cols, last);
    Number sum = 0;
    for (int x = left; x < right; ++x) sum += votes[k * stride + x - first];
    float* to = histograms + cell * orientations + k;
    *to = (left == cell * cell_cols ? 0.f : *to) + float(sum * scale);
  }
}

extern "C" __global__ void hog_cells(const Pixel* images, int height, int width, int channels, int orientations,
                                     int cell_rows, int cell_cols, int root, double scale, const Number* levels,
                                     const Number* thresholds, const unsigned char* of_levels, float* cells) {
  extern __shared__ Number votes[];
  const int down = height / cell_rows, across = width / cell_cols, columns = across * cell_cols;
  const size_t image = blockIdx.x / down;
  const int top = blockIdx.x % down * cell_rows, stride = blockDim.x + 1;  // odd, so that bins lie in different banks
  const Picture picture{images + image * height * width * channels, height, width, channels, root, levels,
                        of_levels[image] != 0};
  float* histograms = cells + size_t(blockIdx.x) * across * orientations;
  for (int first = 0; first < columns; first += blockDim.x) {
    Number* own = votes + threadIdx.x;
    for (int k = 0; k < orientations; ++k) own[k * stride] = 0;
    const int x = first + threadIdx.x;
    for (int y = top; x < columns && y < top + cell_rows; ++y) {
      const Gradient g = strongest(picture, y, x);
      own[bin(g, thresholds, orientations) * stride] += sqrt(g.squared);
    }
    __syncthreads();
    add_columns(votes, stride, first, min(first + int(blockDim.x), columns), cell_cols, orientations, Number(scale),
                histograms);
    __syncthreads();
  }
}

enum Norm { L1, L1_SQRT, L2, L2_HYS };

extern "C" __global__ void hog_blocks(const float* cells, int n_images, int down, int across, int orientations,
                                      int block_rows, int block_cols, int norm, float* features) {
  constexpr float eps = 1e-5f;
  const int rows = down - block_rows + 1, cols = across - block_cols + 1;
  const int run = block_cols * orientations, size = block_rows * run;
  const bool squares = norm == L2 || norm == L2_HYS;
  for (size_t item = first_item(); item < size_t(n_images) * rows * cols; item += item_stride()) {
    const size_t row = item / cols % rows + item / cols / rows * down;
    const float* first = cells + (row * across + item % cols) * orientations;
    const auto number = [&](int i) { return first[size_t(i / run) * across * orientations + i % run]; };
    float total = 0;
    for (int i = lane(); i < size; i += warpSize) total += squares ? number(i) * number(i) : number(i);
    total = warp_sum(total);
    const float factor = 1 / (squares ? sqrtf(total + eps * eps) : total + eps);
    const float ceiling = norm == L2_HYS ? 0.2f : 3e38f;
    float clipped = 0;
    for (int i = lane(); i < size; i += warpSize) {
      const float v = fminf(number(i) * factor, ceiling);
      clipped += v * v;
    }
    clipped = warp_sum(clipped);
    const float again = norm == L2_HYS ? 1 / sqrtf(clipped + eps * eps) : 1;
    for (int i = lane(); i < size; i += warpSize) {
      const float v = fminf(number(i) * factor, ceiling) * again;
      features[item * size + i] = norm == L1_SQRT ? sqrtf(v) : v;
    }
  }
}
