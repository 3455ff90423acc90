// Runs CUDA kernels on the CPU, for tests.
//
// The threads of a block are fibres: each runs until it comes to a barrier, and a scheduler picks the next, in an order
// that a seed shuffles anew at every turn, and some warps wait for several turns. Blocks follow one another, shuffled too.
// So what a kernel may not rely on (that a thread has already written what another reads) fails here for some seed. Also
// found: barriers and warp operations that some threads never reach, uninitialised shared memory (it is filled with 0xff,
// a NaN), shared memory written beyond its end, and launches that CUDA would refuse.
//
// Reads and writes of vectors must be aligned, as on a GPU: the compiler asks wherever a pointer is followed. Denormal
// numbers count as 0.
//
// Not seen: races within a stretch between barriers that no order of whole stretches shows, races between blocks, the
// memory model, speed.
#pragma once
#include <setjmp.h>
#ifdef __SSE2__
#include <xmmintrin.h>
#endif
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("cuda_shared")))

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
static dim3 gridDim, blockDim, blockIdx, threadIdx;
static const int warpSize = 32;

extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

namespace cuda_on_cpu {

constexpr size_t kStack = 64 << 10, kMostShared = 48 << 10, kFence = 256;
constexpr unsigned kMostThreads = 1024, kMostBlocks = 65535;  // the latter along y and z
constexpr int kPoison = 0xff;

enum class State { Ready, AtBlock, AtWarp, Done };

struct Fibre {
  dim3 index;
  State state = State::Ready;
  bool started = false;
  int turn = 0;  // which of its two boxes a warp operation uses: nobody is further ahead than one operation
  uint64_t box[2] = {};
  jmp_buf here;
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
};

static std::vector<std::unique_ptr<Fibre>> fibres;  // kept from launch to launch
static unsigned current;
static jmp_buf scheduler;
static void (*body)(void*);
static void* argument;
static const char* failure;
static char* dynamic_shared;
static uint64_t random_state;

inline uint64_t random() {  // xorshift
  random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
  return random_state * 0x2545f4914f6cdd1dull >> 11;
}
inline void shuffle(std::vector<unsigned>& order) {
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

inline Fibre& self() { return *fibres[current]; }

inline void leave(State state) {
  self().state = state;
  if (!_setjmp(self().here)) _longjmp(scheduler, 1);
}

inline void fail(const char* message) {
  failure = message;
  leave(State::Done);
}

extern "C" __attribute__((used, visibility("hidden"))) void __ubsan_handle_type_mismatch_v1(void*, uintptr_t) {
  fail("a misaligned address");
}

static void live() {
  for (;;) {
    body(argument);
    leave(State::Done);
  }
}

inline void start(Fibre& fibre) {
  fibre.started = true;
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStack;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, live, 0);
  setcontext(&fibre.context);
}

inline void run(unsigned thread) {
  current = thread;
  threadIdx = self().index;
  if (_setjmp(scheduler)) return;
  self().started ? _longjmp(self().here, 1) : start(self());
}

inline unsigned count(State state, unsigned first, unsigned last) {
  unsigned n = 0;
  for (unsigned t = first; t < last; ++t) n += fibres[t]->state == state;
  return n;
}
inline void release(unsigned first, unsigned last) {
  for (unsigned t = first; t < last; ++t) fibres[t]->state = State::Ready;
}

inline void release_warps(unsigned n) {
  for (unsigned first = 0; first < n; first += warpSize) {
    const unsigned last = min(first + warpSize, n), waiting = count(State::AtWarp, first, last);
    if (!waiting) continue;
    if (waiting < unsigned(warpSize)) throw std::runtime_error("some threads of a warp do not take part in its operation");
    release(first, last);
  }
}

inline void run_block(unsigned n, std::vector<unsigned>& order) {
  release(0, n);
  for (uint64_t asleep = n > unsigned(warpSize) ? random() : 0;;) {
    shuffle(order);
    if (n > unsigned(warpSize) && random() % 8 == 0) asleep = random();  // these warps wait, and others get ahead
    for (unsigned t : order)
      if (fibres[t]->state == State::Ready && !(asleep >> t / warpSize & 1)) run(t);
    if (failure) throw std::runtime_error(failure);
    release_warps(n);
    if (count(State::Done, 0, n) == n) return;
    if (count(State::AtBlock, 0, n) == n) release(0, n);
    else if (!count(State::Ready, 0, n)) throw std::runtime_error("some threads never reach a __syncthreads()");
  }
}

inline void check(dim3 grid, dim3 block, unsigned n, size_t shared) {
  if (!n || n > kMostThreads || block.z > 64) throw std::runtime_error("a block of " + std::to_string(n) + " threads");
  if (!grid.x || !grid.y || !grid.z || grid.x > INT32_MAX || grid.y > kMostBlocks || grid.z > kMostBlocks)
    throw std::runtime_error("a grid that is empty or too large");
  if (shared + (__stop_cuda_shared - __start_cuda_shared) > kMostShared)
    throw std::runtime_error("more than 48 KiB of shared memory");
}

inline void prepare(dim3 block, unsigned n) {
  while (fibres.size() < n) fibres.push_back(std::make_unique<Fibre>());
  for (unsigned t = 0; t < n; ++t)
    fibres[t]->index = {t % block.x, t / block.x % block.y, t / block.x / block.y};
}

inline void run_grid(dim3 grid, dim3 block, size_t shared) {
  const unsigned n = block.x * block.y * block.z;
  check(grid, block, n, shared);
  prepare(block, n);
  gridDim = grid, blockDim = block;
  std::vector<char> memory(shared + kFence);
  std::vector<unsigned> order(n), blocks(size_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0), std::iota(blocks.begin(), blocks.end(), 0);
  shuffle(blocks);
  for (unsigned b : blocks) {
    std::memset(memory.data(), kPoison, memory.size());
    std::memset(__start_cuda_shared, kPoison, __stop_cuda_shared - __start_cuda_shared);
    dynamic_shared = memory.data();
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    run_block(n, order);
    for (size_t i = shared; i < memory.size(); ++i)
      if (memory[i] != char(kPoison)) throw std::runtime_error("writes beyond its dynamic shared memory");
  }
}

// CuPy has kernels take numbers below 1.2e-38 for 0.
struct DenormalsAreZero {
#ifdef __SSE2__
  unsigned before = _mm_getcsr();
  DenormalsAreZero() { _mm_setcsr(before | 0x8040); }
  ~DenormalsAreZero() { _mm_setcsr(before); }
#endif
};

// Returns what went wrong, or nothing.
template <class Kernel>
const char* launch(dim3 grid, dim3 block, size_t shared, uint64_t seed, Kernel kernel) {
  static std::string message;
  random_state = seed * 0x9e3779b97f4a7c15ull + 1;
  const DenormalsAreZero zero;
  body = [](void* k) { (*static_cast<Kernel*>(k))(); };
  argument = &kernel, failure = nullptr;
  try {
    run_grid(grid, block, shared);
  } catch (const std::exception& error) {
    fibres.clear();  // some are in the middle of the kernel
    message = error.what();
    return message.c_str();
  }
  return nullptr;
}

// --- Arguments come as pointers to their values; a signature tells which types a kernel takes ------------------------

template <class T>
std::string type_name() {
  const char kind = std::is_floating_point_v<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u';
  return kind + std::to_string(sizeof(T));
}
template <class T>
std::string argument_name() {
  using Value = std::remove_pointer_t<T>;
  return std::is_pointer_v<T> ? (std::is_const_v<Value> ? "<" : ">") + type_name<Value>() : type_name<T>();
}
template <class... A>
std::string signature(void (*)(A...)) {
  std::string names;
  ((names += argument_name<A>() + ' '), ...);
  return names;
}

template <class... A, size_t... I>
const char* call(void (*kernel)(A...), std::index_sequence<I...>, const unsigned* g, const unsigned* b, size_t shared,
                 uint64_t seed, void** arguments) {
  return launch({g[0], g[1], g[2]}, {b[0], b[1], b[2]}, shared, seed,
                [=] { kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...); });
}
template <class... A>
const char* call(void (*kernel)(A...), const unsigned* grid, const unsigned* block, size_t shared, uint64_t seed,
                 void** arguments) {
  return call(kernel, std::index_sequence_for<A...>{}, grid, block, shared, seed, arguments);
}

// --- Warp operations --------------------------------------------------------------------------------------------------

// Puts a value where the other lanes can read it, once all have done so, and returns where.
template <class T>
int offer(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  const int turn = self().turn ^= 1;
  std::memcpy(&self().box[turn], &value, sizeof value);
  leave(State::AtWarp);
  return turn;
}
template <class T>
T taken(unsigned lane, int turn) {
  T value;
  std::memcpy(&value, &fibres[current / warpSize * warpSize + lane]->box[turn], sizeof value);
  return value;
}
template <class T>
T shuffled(T value, unsigned lane) {
  if (lane >= unsigned(warpSize)) fail("a warp shuffle from a lane that does not exist");
  return taken<T>(lane, offer(value));
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_ENTRY(kernel)                                                                                  \
  extern "C" const char* signature_##kernel() {                                                                    \
    static const std::string names = cuda_on_cpu::signature(&kernel);                                              \
    return names.c_str();                                                                                          \
  }                                                                                                                \
  extern "C" const char* launch_##kernel(const unsigned* grid, const unsigned* block, size_t shared, uint64_t seed, \
                                         void** arguments) {                                                       \
    return cuda_on_cpu::call(&kernel, grid, block, shared, seed, arguments);                                       \
  }

// --- What CUDA has built in -------------------------------------------------------------------------------------------

inline void __syncthreads() { cuda_on_cpu::leave(cuda_on_cpu::State::AtBlock); }
inline int __syncthreads_or(int value) {
  static int any;
  __syncthreads();
  any = 0;
  __syncthreads();
  any |= value != 0;
  __syncthreads();
  return any;
}
inline void __syncwarp(unsigned = ~0u) { cuda_on_cpu::leave(cuda_on_cpu::State::AtWarp); }

template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return cuda_on_cpu::shuffled(value, lane & (warpSize - 1));  // as CUDA has it
}
template <class T>
T __shfl_up_sync(unsigned, T value, int distance) {
  const int lane = cuda_on_cpu::current % warpSize;
  return cuda_on_cpu::shuffled(value, lane < distance ? lane : lane - distance);
}
inline int __any_sync(unsigned, int value) {
  const int turn = cuda_on_cpu::offer(value);
  int any = 0;
  for (int lane = 0; lane < warpSize; ++lane) any |= cuda_on_cpu::taken<int>(lane, turn);
  return any != 0;
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return cuda_on_cpu::shuffled(value, cuda_on_cpu::current % warpSize ^ mask);
}

template <class T>
T atomicAdd(T* place, T value) {
  static_assert(std::is_integral_v<T>, "sums of floats would depend on the order of the threads");
  const T before = *place;
  *place += value;
  return before;
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned which) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= (bytes >> 8 * (which >> 4 * i & 7) & 0xff) << 8 * i;
  return result;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float __saturatef(float x) { return x > 0 ? min(x, 1.f) : 0; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __fmaf_rd(float a, float b, float c) {
  const double exact = double(a) * b + c;
  const float near = float(exact);
  return near > exact ? std::nextafterf(near, -INFINITY) : near;
}

inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
