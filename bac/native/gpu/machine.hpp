// What a GPU and the CPU form do differently: lanes of a warp, warps of a thread block, and their barriers.
//
// Code between two waits is written per item, per warp or per lane. A GPU runs these at once. The CPU form runs them one
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
BAC_FN unsigned flag_of(const Quad& v) { return __float_as_uint(v.w); }

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

struct Team {
  BAC_FN void sync() const { __syncthreads(); }
  BAC_FN void sync_once(int) const { __syncthreads(); }  // within `each_warp`
  template <class F>
  BAC_FN void each_warp(F f) const {
    f(thread() / kLanes);
  }
  template <class F>
  BAC_FN void each_item(int count, F f) const {
    for (int i = thread(); i < count; i += kThreads) f(i);
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

#else

constexpr int kCopies = kLanes;

inline float widen(Half h) {
  _Float16 value;
  std::memcpy(&value, &h.bits, sizeof value);
  return float(value);
}
inline float inverse(float x) { return 1.0f / x; }
inline float inverse_root(float x) { return 1.0f / std::sqrt(x); }
inline float power(float x) { return std::exp(x); }
inline unsigned flag_of(const Quad& v) {
  unsigned flag;
  std::memcpy(&flag, &v.w, sizeof flag);
  return flag;
}
inline unsigned* flag_at(const Quad* p) { return reinterpret_cast<unsigned*>(const_cast<float*>(&p->w)); }
inline void send(Quad* to, float x, float y, float z, unsigned flag) {
  to->x = x, to->y = y, to->z = z;
  __atomic_store_n(flag_at(to), flag, __ATOMIC_RELEASE);
}
inline Quad remote(const Quad* p) {
  const unsigned flag = __atomic_load_n(flag_at(p), __ATOMIC_ACQUIRE);
  Quad v{p->x, p->y, p->z, 0};
  std::memcpy(&v.w, &flag, sizeof flag);
  return v;
}
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

// The warps of a thread block that one thread runs, one after another; with a meeting, other threads run the others.
struct Team {
  int begin = 0, end = kWarps;
  Meeting* meeting = nullptr;
  void sync() const {
    if (meeting) meeting->wait();
  }
  void sync_once(int warp) const {
    if (warp == begin) sync();
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

#endif

// What each lane of a warp has for itself.
template <class T>
struct PerLane {
  T item[kCopies];
  BAC_FN T& operator[](int lane) { return item[kCopies == 1 ? 0 : lane]; }
};

// Each lane's sum over all lanes.
BAC_FN void sum_lanes(PerLane<float>& value) {
  BAC_UNROLL for (int distance = kLanes / 2; distance > 0; distance /= 2) {
#if defined(__CUDACC__)
    value[0] += exchange(value[0], distance);
#else
    const PerLane<float> before = value;
    for (int lane = 0; lane < kLanes; ++lane) value[lane] += before.item[lane ^ distance];
#endif
  }
}

// Each lane's sums over the `parts` (1, 2 or 4) lanes that follow each other.
template <int N>
BAC_FN void sum_parts(PerLane<float[N]>& value, int parts) {
  BAC_UNROLL for (int distance = 1; distance < 4; distance *= 2) {
    if (distance >= parts) return;
#if defined(__CUDACC__)
    BAC_UNROLL for (int i = 0; i < N; ++i) value[0][i] += exchange(value[0][i], distance);
#else
    const PerLane<float[N]> before = value;
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < N; ++i) value[lane][i] += before.item[lane ^ distance][i];
#endif
  }
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
  const PerLane<float[N]> before = value;
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
