// What a GPU and the CPU form do differently: lanes of a warp, warps of a thread block, and their barriers.
//
// Code between two barriers is written per item, per warp or per lane. A GPU runs these at once. The CPU form runs them one
// after another in one thread, or with a thread for each warp, which shows a race detector every barrier that is missing.
#pragma once
#include "params.hpp"

#if defined(__CUDACC__)
#define BAC_FN __device__ __forceinline__
#define BAC_UNROLL _Pragma("unroll")
#else
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <thread>
#define BAC_FN inline
#define BAC_UNROLL
#endif

namespace bac {

struct alignas(8) Pair {
  float x, y;
};
struct alignas(16) Quad {
  float x, y, z, w;
};
struct Half {
  unsigned short bits;
};

BAC_FN int least(int a, int b) { return a < b ? a : b; }
BAC_FN int most(int a, int b) { return a > b ? a : b; }
// Where the share of thread block `index` of `total` things begins.
BAC_FN int share(int total, int index, int blocks) { return int((long long)total * index / blocks); }

#if defined(__CUDACC__)

constexpr int kCopies = 1;  // of what each lane has for itself
constexpr long long kPatience = 1ll << 32;  // clock cycles, about two seconds: an error is better than a robot that waits

BAC_FN float widen(Half h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
  return f;
}

// Reads what another thread block has written: past the first-level cache, and never before an earlier barrier.
BAC_FN float remote(const float* p) {
  float v;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p));
  return v;
}
BAC_FN Pair remote2(const float* p) {
  Pair v;
  asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(p));
  return v;
}
BAC_FN Quad remote4(const float* p) {
  Quad v;
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p));
  return v;
}

// Starts to copy 16 bytes into shared memory; `arrived` waits for the copies of this thread.
BAC_FN void fetch(float* to, const float* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(unsigned(__cvta_generic_to_shared(to))), "l"(from) : "memory");
}
BAC_FN void arrived() { asm volatile("cp.async.wait_all;" ::: "memory"); }

template <class F>
BAC_FN void each_lane(F f) {
  f(int(threadIdx.x) % kLanes);
}

struct Team {
  BAC_FN void sync() const { __syncthreads(); }
  template <class F>
  BAC_FN void each_warp(F f) const {
    f(int(threadIdx.x) / kLanes);
  }
  template <class F>
  BAC_FN void each_item(int count, F f) const {
    for (int i = int(threadIdx.x); i < count; i += kThreads) f(i);
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
inline float remote(const float* p) { return *p; }
inline Pair remote2(const float* p) { return {p[0], p[1]}; }
inline Quad remote4(const float* p) { return {p[0], p[1], p[2], p[3]}; }
inline void fetch(float* to, const float* from) { std::memcpy(to, from, sizeof(Quad)); }
inline void arrived() {}

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
  template <class F>
  void each_warp(F f) const {
    for (int warp = begin; warp < end; ++warp) f(warp);
  }
  template <class F>
  void each_item(int count, F f) const {
    for (int start = 0; start < count; start += kThreads)
      for (int i = start + begin * kLanes; i < least(count, start + end * kLanes); ++i) f(i);
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

// Sums N numbers of each lane over all lanes. Lane by lane it halves what it is in charge of: in the end `emit(which, sum)`
// is called by one lane for each of the N.
template <int N, class Emit>
BAC_FN void spread_sums(PerLane<float[N]>& value, Emit emit) {
  static_assert(N <= kLanes, "a lane would be in charge of several numbers");
  halve<N, N, kLanes / 2>(value);
  each_lane([&](int lane) {
    int first = 0, count = N, span = N;
    BAC_UNROLL for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      const int half = (span + 1) / 2;
      if (lane & distance) first += half, count -= half;
      else count = least(count, half);
      span = half;
    }
    if (count > 0) emit(first, value[lane][0]);
  });
}

}  // namespace bac
