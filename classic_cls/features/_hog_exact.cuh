// The part of hog.cu that finds gradients in double precision: where rounding decides between two channels or two bins.
#pragma once

struct Exact {
  const double *levels, *thresholds;
  int root;
  bool of_levels;  // all float32 around here stand for some k / 255, and are read as that, as in hog.cpp

  __device__ double value(unsigned char pixel) const { return levels[pixel]; }
  __device__ double value(double pixel) const { return root ? sqrt(pixel) : pixel; }
  __device__ double value(float pixel) const {
    const double x = pixel;
    return value(of_levels ? rint(x * 255) / 255 : x);
  }
};

struct Gradient {
  double x, y, squared;
};

__device__ inline Gradient gradient(const Band& band, const Exact& exact, int y, int x, int c) {
  const bool inside_x = x > 0 && x + 1 < WIDTH, inside_y = y > 0 && y + 1 < HEIGHT;
  Gradient g;
  g.x = inside_x ? exact.value(band.at(y, x + 1)[c]) - exact.value(band.at(y, x - 1)[c]) : 0;
  g.y = inside_y ? exact.value(band.at(y + 1, x)[c]) - exact.value(band.at(y - 1, x)[c]) : 0;
  g.squared = g.x * g.x + g.y * g.y;
  return g;
}

// The root of x * x + y * y in the steps of glibc from 2.35 on (C. F. Borges, "An improved algorithm for hypot(a, b)",
// 2019): once in 200 times it is not the nearest double, nor is what scikit-image compares, and here that decides.
__device__ inline double hypotenuse(double x, double y) {
  const double a = max(fabs(x), fabs(y)), b = min(fabs(x), fabs(y)), root = sqrt(a * a + b * b);
  const bool alike = root <= 2 * b;
  const double rest = root - (alike ? b : a);
  const double more = alike ? a * (2 * rest - a) : 2 * rest * (a - 2 * b);
  const double less = alike ? (rest - 2 * (a - b)) * rest : (4 * rest - b) * b + rest * rest;
  return root > 0 ? root - (more + less) / (2 * root) : 0;
}

// Where two channels are equally strong to within rounding, scikit-image's rounding decides: it compares hypotenuses.
__device__ inline bool stronger(const Gradient& g, const Gradient& best) {
  const bool near = fabs(g.squared - best.squared) <= g.squared * 1e-15 && (g.x != best.x || g.y != best.y);
  return near ? hypotenuse(g.x, g.y) > hypotenuse(best.x, best.y) : g.squared > best.squared;
}

// thresholds[gy >= 0][k] is a cotangent in two parts, whose sum has twice the precision: the one at which scikit-image's
// angle, rounded as it is, changes from orientation k - 1 to k. So gradients on a threshold need no case of their own.
__device__ inline int orientation(const Gradient& g, const Exact& exact) {
  const bool turn = g.y < 0 || (g.y == 0 && g.x < 0);
  const double x = turn ? -g.x : g.x, y = turn ? -g.y : g.y, size = fabs(x) + y;
  const float slope = size > 0 ? float((x < 0 ? -y : y) / size) : 0;
  const int n = ORIENTATIONS, k = int(Compass::nearest(slope) - Compass::ZERO) - Compass::MIDDLE + (x < 0 ? n : 0);
  if (k <= 0 || k >= n) return k <= 0 ? 0 : n - 1;
  const double* cotangent = exact.thresholds + 2 * ((g.y < 0 ? 0 : n) + k);
  return fma(-cotangent[0], y, x) <= cotangent[1] * y ? k : k - 1;
}

struct ExactVote {
  int bin;
  float weight;

  __device__ ExactVote(const Band& band, const Exact& exact, int y, int x) {
    Gradient best = gradient(band, exact, y, x, 0);
    for (int c = 1; c < CHANNELS; ++c) {
      const Gradient g = gradient(band, exact, y, x, c);
      if (stronger(g, best)) best = g;
    }
    bin = Compass::bin(orientation(best, exact)), weight = sqrtf(float(best.squared)) * WHITE;
  }
  __device__ void add_to(float* histogram) const { histogram[bin * THREADS] += weight; }
};

// A band of several images, of which each has a bit in `levels_in`, as of_levels tells.
struct Source {
  Band first;
  Exact exact;
  unsigned levels_in;
  char* memory;

  __device__ Band band(int which) const {
    Band band = first;
    if (STAGED) band.pixels = (const Pixel*)(memory + which * ROOM);
    return band;
  }
  __device__ ExactVote vote(int which, int y, int x) const {
    Exact its = exact;
    its.of_levels = levels_in >> which & 1;
    return ExactVote(band(which), its, y, x);
  }
};

// The votes of pixels in doubt: lane by lane, those of the RUN columns from x on and of 32 / RUN rows from y on whose bit
// is set. The lanes of a warp share this work, whoever's they are; each adds its own votes, in their order.
__device__ inline void settle(unsigned doubts, const Source& source, int which, int y, int x, float* own) {
  constexpr unsigned ALL = 0xffffffff;
  if (!__any_sync(ALL, doubts != 0)) return;
  int until = __popc(doubts);  // pixels of this lane and those before
  for (int distance = 1; distance < 32; distance *= 2) {
    const int before = __shfl_up_sync(ALL, until, distance);
    until += lane() >= distance ? before : 0;
  }
  const int from = until - __popc(doubts), total = __shfl_sync(ALL, until, 31);
  for (int first = 0; first < total; first += 32) {
    const int item = min(first + lane(), total - 1);
    int owner = 0;
    for (int step = 16; step > 0; step /= 2)
      owner += __shfl_sync(ALL, until, owner + step - 1) <= item ? step : 0;
    unsigned its = __shfl_sync(ALL, doubts, owner);
    for (int rank = item - __shfl_sync(ALL, from, owner); rank > 0; --rank) its &= its - 1;
    const int pixel = __ffs(its) - 1, its_y = __shfl_sync(ALL, y, owner), its_x = __shfl_sync(ALL, x, owner);
    ExactVote vote = source.vote(__shfl_sync(ALL, which, owner), its_y + pixel / RUN, its_x + pixel % RUN);
    const int end = min(until, first + 32);
    for (int i = max(from, first); __any_sync(ALL, i < end); ++i) {
      ExactVote mine = vote;
      mine.bin = __shfl_sync(ALL, vote.bin, i), mine.weight = __shfl_sync(ALL, vote.weight, i);  // modulo 32
      if (i < end) mine.add_to(own);
    }
  }
}
