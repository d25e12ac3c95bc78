// What a GPU and the CPU form do differently: lanes of a warp, warps of a thread block, and their barriers.
//
// Code between two barriers is written per item, per warp or per lane. A GPU runs these at once. The CPU form runs them one
// after another in one thread, or with a thread for each warp, which shows a race detector every barrier that is missing.
#pragma once
#include "params.hpp"

#if defined(__CUDACC__)
#define BAC_UNROLL _Pragma("unroll")
#else
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#define BAC_UNROLL
#endif

namespace bac {

struct Half {
  unsigned short bits;
};

// The numbers of some items of a thread, which lie so that a warp takes what follows each other.
struct Items {
  int first;
  BAC_FN int operator()(int i) const { return first + i * kThreads; }
};

BAC_FN int least(int a, int b) { return a < b ? a : b; }
BAC_FN int most(int a, int b) { return a > b ? a : b; }
// Where the share of thread block `index` of `total` things begins.
BAC_FN int share(int total, int index, int blocks) { return int(unsigned(total) * unsigned(index) / unsigned(blocks)); }

#if defined(__CUDACC__)

constexpr int kCopies = 1;  // of what each lane has for itself
constexpr long long kPatience = 1ll << 32;  // clock cycles, about two seconds: an error is better than a robot that waits

BAC_FN float widen(Half h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
  return f;
}

BAC_FN Half narrow(float x) {
  Half h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
  return h;
}

// To two units in the last place; softmax and norms need no more, and a division is long.
BAC_FN float inverse(float x) {
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
BAC_FN float inverse_root(float x) {
  float y;
  asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
BAC_FN float power(float x) {  // e^x of x up to 0
  float y;
  asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
  return y;
}

// Three numbers for other thread blocks, and the flag that says they are there, as one 16-byte store: no barrier is needed.
BAC_FN void send(Quad* to, float x, float y, float z, unsigned flag) {
  asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x), "f"(y), "f"(z), "f"(__uint_as_float(flag)) : "memory");
}
// Reads what a thread block has sent, past the first-level cache.
BAC_FN Quad remote(const Quad* p) {
  Quad v;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
  return v;
}
BAC_FN unsigned bits_of(float x) { return __float_as_uint(x); }
BAC_FN float with_bits(unsigned bits) { return __uint_as_float(bits); }
BAC_FN unsigned flag_of(const Quad& v) { return bits_of(v.w); }
BAC_FN float remote(const float* p) {
  float v;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
  return v;
}

// Reads N quads, each as soon as it has its flag. `at(i)` points to one, or is null.
template <int N, class At>
BAC_FN void receive(Quad (&quad)[N], unsigned flag, At at) {
  BAC_UNROLL for (int i = 0; i < N; ++i)
    if (at(i)) quad[i] = remote(at(i));
  const long long begin = clock64();
  for (;;) {
    bool all = true;
    BAC_UNROLL for (int i = 0; i < N; ++i)
      if (at(i) && flag_of(quad[i]) != flag) quad[i] = remote(at(i)), all = false;
    if (all) return;
    if (clock64() - begin > kPatience) asm volatile("trap;");
  }
}

// Starts to copy 16 or 4 bytes into shared memory; `arrived` waits for the copies of this thread.
BAC_FN void fetch(Quad* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(unsigned(__cvta_generic_to_shared(to))), "l"(from) : "memory");
}
BAC_FN void fetch(float* to, const float* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(unsigned(__cvta_generic_to_shared(to))), "l"(from) : "memory");
}
BAC_FN void arrived() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// This thread's number, at every call as if it were new: what follows from it is computed again where it is used, and not kept
// over the whole loop in registers that are too few for all phases.
BAC_FN int thread() {
  int number = int(threadIdx.x);
  asm volatile("" : "+r"(number));
  static_assert((kThreads & (kThreads - 1)) == 0, "the next line needs a power of two");
  return number & (kThreads - 1);  // so that the compiler knows its bounds
}

template <class F>
BAC_FN void each_lane(F f) {
  f(thread() % kLanes);
}

// What each lane of a warp has for itself.
template <class T>
struct PerLane {
  T item[1];
  BAC_FN T& operator[](int) { return item[0]; }
};

struct Team {
  BAC_FN void sync() const { __syncthreads(); }
  template <class F>
  BAC_FN void each_warp(F f) const {
    f(thread() / kLanes);
  }
  template <class F>
  BAC_FN void each_item(int count, F f) const {
    for (int i = thread(); i < count; i += kThreads) f(i);
  }
  // The same by the upper half of the warps, while the lower half may already do something else.
  template <class F>
  BAC_FN void each_late_item(int count, F f) const {
    if (thread() >= kThreads / 2)
      for (int i = thread() % (kThreads / 2); i < count; i += kThreads / 2) f(i);
  }
  // The same with the items of all lanes of a warp.
  template <int N, class F>
  BAC_FN void each_batch_warp(int count, F f) const {
    each_batch<N>(count, [&](const Items& items) {
      PerLane<Items> mine{{items}};
      f(mine);
    });
  }
  // f(items) for N items of a thread at once: items(0) ... items(N - 1), of which those from `count` on are none.
  template <int N, class F>
  BAC_FN void each_batch(int count, F f) const {
    for (int first = thread(); first < count; first += kThreads * N) f(Items{first});
  }
};

// Waits until `counter` has reached `target`, having added one for this thread block. Counts may wrap around.
BAC_FN void grid_barrier(const Team&, unsigned* counter, unsigned target) {
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned seen;
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(counter), "r"(1u) : "memory");
    const long long begin = clock64();
    for (;;) {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
      if (int(seen - target) >= 0) break;
      if (clock64() - begin > kPatience) asm volatile("trap;");
    }
  }
  __syncthreads();
}

template <class T>
BAC_FN T exchange(T value, int distance) {
  return __shfl_xor_sync(0xffffffffu, value, distance);
}

// Lanes that have waited for different things go on together: shuffles are slow where the compiler cannot know that they do.
BAC_FN void together() { __syncwarp(); }

// sums [16 tokens][8 rows] += activations [16][16 columns] times weights [8][16 columns], by a tensor core. A lane has of each
// what the instruction mma.m16n8k16 asks for.
BAC_FN void multiply(PerLane<float[4]>& sums, PerLane<unsigned[4]>& activations, PerLane<unsigned[2]>& weights) {
  float(&d)[4] = sums[0];
  const unsigned(&a)[4] = activations[0], (&b)[2] = weights[0];
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else

constexpr int kCopies = kLanes;

inline float widen(Half h) {
  _Float16 value;
  std::memcpy(&value, &h.bits, sizeof value);
  return float(value);
}
inline Half narrow(float x) {
  const _Float16 value = _Float16(x);
  Half h;
  std::memcpy(&h.bits, &value, sizeof value);
  return h;
}
inline float inverse(float x) { return 1.0f / x; }
inline float inverse_root(float x) { return 1.0f / std::sqrt(x); }
inline float power(float x) { return std::exp(x); }
inline unsigned bits_of(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float with_bits(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline unsigned flag_of(const Quad& v) { return bits_of(v.w); }
inline unsigned* flag_at(const Quad* p) { return reinterpret_cast<unsigned*>(const_cast<float*>(&p->w)); }
inline void send(Quad* to, float x, float y, float z, unsigned flag) {
  to->x = x, to->y = y, to->z = z;
  __atomic_store_n(flag_at(to), flag, __ATOMIC_RELEASE);
}
inline Quad remote(const Quad* p) {
  const unsigned flag = __atomic_load_n(flag_at(p), __ATOMIC_ACQUIRE);
  return {p->x, p->y, p->z, with_bits(flag)};
}
inline float remote(const float* p) { return *p; }
inline void fetch(Quad* to, const void* from) { std::memcpy(to, from, sizeof(Quad)); }
inline void fetch(float* to, const float* from) { *to = *from; }
inline void arrived() {}

// What was never sent would be waited for without an end, if the thread blocks run one after another.
template <int N, class At>
inline void receive(Quad (&quad)[N], unsigned flag, At at) {
  for (int i = 0; i < N; ++i) {
    const Quad* from = at(i);
    if (!from) continue;
    for (long long tries = 0; __atomic_load_n(flag_at(from), __ATOMIC_ACQUIRE) != flag; ++tries) {
      if (tries > 1 << 24) std::abort();
      std::this_thread::yield();
    }
    quad[i] = remote(from);
  }
}

template <class F>
inline void each_lane(F f) {
  for (int lane = 0; lane < kLanes; ++lane) f(lane);
}

// Lets `count` threads wait for each other.
class Meeting {
 public:
  explicit Meeting(int count) : count(count) {}
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    const unsigned own = round;
    if (++here == count) here = 0, ++round, all.notify_all();
    else all.wait(lock, [&] { return round != own; });
  }

 private:
  const int count;
  int here = 0;
  unsigned round = 0;
  std::mutex mutex;
  std::condition_variable all;
};

template <class T>
struct PerLane {
  T item[kLanes];
  T& operator[](int lane) { return item[lane]; }
};

// The warps of a thread block that one thread runs, one after another; with a meeting, other threads run the others.
struct Team {
  int begin = 0, end = kWarps;
  Meeting* meeting = nullptr;
  void sync() const {
    if (meeting) meeting->wait();
  }
  template <class F>
  void each_warp(F f) const {
    for (int warp = begin; warp < end; ++warp) f(warp);
  }
  template <class F>
  void each_item(int count, F f) const {
    for (int start = 0; start < count; start += kThreads)
      for (int i = start + begin * kLanes; i < least(count, start + end * kLanes); ++i) f(i);
  }
  template <int N, class F>
  void each_batch_warp(int count, F f) const {
    for (int start = 0; start < count; start += kThreads * N)
      for (int warp = begin; warp < end && start + warp * kLanes < count; ++warp) {
        PerLane<Items> mine;
        for (int lane = 0; lane < kLanes; ++lane) mine[lane] = Items{start + warp * kLanes + lane};
        f(mine);
      }
  }
  template <class F>
  void each_late_item(int count, F f) const {
    each_item(count, f);
  }
  template <int N, class F>
  void each_batch(int count, F f) const {
    for (int start = 0; start < count; start += kThreads * N)
      for (int first = start + begin * kLanes; first < least(count, start + end * kLanes); ++first) f(Items{first});
  }
};

// The algorithm of the GPU's, for the form with threads: the first warp waits for the other thread blocks.
inline void grid_barrier(const Team& team, unsigned* counter, unsigned target) {
  team.sync();
  if (team.begin == 0) {
    __atomic_fetch_add(counter, 1u, __ATOMIC_RELEASE);
    while (int(__atomic_load_n(counter, __ATOMIC_ACQUIRE) - target) < 0) std::this_thread::yield();
  }
  team.sync();
}

inline void together() {}

inline void multiply(PerLane<float[4]>& sums, PerLane<unsigned[4]>& activations, PerLane<unsigned[2]>& weights) {
  const auto part = [](unsigned pair, int which) { return widen(Half{static_cast<unsigned short>(which ? pair >> 16 : pair)}); };
  float a[16][16], w[8][16];
  for (int k = 0; k < 16; ++k) {
    for (int token = 0; token < 16; ++token) a[token][k] = part(activations[token % 8 * 4 + k % 8 / 2][token / 8 + k / 8 * 2], k % 2);
    for (int row = 0; row < 8; ++row) w[row][k] = part(weights[row * 4 + k % 8 / 2][k / 8], k % 2);
  }
  for (int token = 0; token < 16; ++token)
    for (int row = 0; row < 8; ++row) {
      float total = 0;
      for (int k = 0; k < 16; ++k) total += a[token][k] * w[row][k];
      sums[token % 8 * 4 + row / 2][token / 8 * 2 + row % 2] += total;
    }
}

#endif

// value = op over the four lanes that follow each other, for each of N numbers.
template <int N, class Op>
BAC_FN void over_four(PerLane<float[N]>& value, Op op) {
  together();
  BAC_UNROLL for (int distance = 1; distance < 4; distance *= 2) {
#if defined(__CUDACC__)
    BAC_UNROLL for (int i = 0; i < N; ++i) value[0][i] = op(value[0][i], exchange(value[0][i], distance));
#else
    const PerLane<float[N]> before = value;
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < N; ++i) value[lane][i] = op(before.item[lane][i], before.item[lane ^ distance][i]);
#endif
  }
}

// A number as two of half precision.
struct Split {
  Half high, low;
};
constexpr float kLow = 2048;  // what the low part is multiplied with, so that it is no denormal number
BAC_FN Split split(float x) {
  const Half high = narrow(x);
  return {high, narrow((x - widen(high)) * kLow)};
}
BAC_FN unsigned two(Half first, Half second) { return first.bits | unsigned(second.bits) << 16; }
// Both parts in the place of a float, for those who multiply what they are sent.
BAC_FN float packed(float x) {
  const Split parts = split(x);
  return with_bits(two(parts.high, parts.low));
}
BAC_FN Split unpacked(float x) {
  const unsigned bits = bits_of(x);
  return {Half{static_cast<unsigned short>(bits)}, Half{static_cast<unsigned short>(bits >> 16)}};
}

// One halving of `spread_sums`: the upper of two lanes goes on with the second half of the numbers, the lower with the first.
template <int N, int Length, int Distance>
BAC_FN void halve(PerLane<float[N]>& value) {
  constexpr int kHalf = (Length + 1) / 2;
#if defined(__CUDACC__)
  const bool upper = threadIdx.x & Distance;
  BAC_UNROLL for (int i = 0; i < kHalf; ++i) {
    const float second = i + kHalf < Length ? value[0][i + kHalf] : 0.0f;
    value[0][i] = (upper ? second : value[0][i]) + exchange(upper ? value[0][i] : second, Distance);
  }
#else
  PerLane<float[N]> before = value;
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < kHalf; ++i) {
      const int at = lane & Distance ? i + kHalf : i;
      value[lane][i] = at < Length ? before.item[lane][at] + before.item[lane ^ Distance][at] : 0.0f;
    }
#endif
  if constexpr (Distance > 1) halve<N, kHalf, Distance / 2>(value);
}

// Sums N numbers of each lane over every `Lanes` lanes that follow each other. Lane by lane these halve what they are in
// charge of: in the end `emit(lane, which, sum)` is called by one of them for each of the N.
template <int Lanes, int N, class Emit>
BAC_FN void spread_sums(PerLane<float[N]>& value, Emit emit) {
  together();
  halve<N, N, Lanes / 2>(value);
  each_lane([&](int lane) {
    int first = 0, count = N, span = N;
    BAC_UNROLL for (int distance = Lanes / 2; distance > 0; distance /= 2) {
      const int half = (span + 1) / 2;
      if (lane & distance) first += half, count -= half;
      else count = least(count, half);
      span = half;
    }
    constexpr int kEach = (N + Lanes - 1) / Lanes;
    BAC_UNROLL for (int i = 0; i < kEach; ++i)
      if (i < count) emit(lane, first + i, value[lane][i]);
  });
}

}  // namespace bac
