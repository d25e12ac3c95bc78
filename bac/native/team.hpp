// What threads that work on the same samples share: when all are done with a step, and who has which memory.
#pragma once
#include <atomic>
#include <thread>

#include "crew.hpp"
#include "layout.hpp"

namespace bac {
namespace {

struct Barrier {
  explicit Barrier(int n) : size(n) {}
  void wait() {
    if (size == 1) return;
    const int turn = generation.load(std::memory_order_relaxed);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
      arrived.store(0, std::memory_order_relaxed);
      generation.store(turn + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; generation.load(std::memory_order_acquire) == turn; ++spins) spins < 2000 ? relax() : std::this_thread::yield();
  }
  const int size;
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<int> generation{0};
};

// Hands out consecutive parts of a piece of memory, each on a cache line of its own; with none it only counts.
struct Parts {
  float* take(size_t floats) {
    float* part = start ? start + used : nullptr;
    used += (floats + 15) / 16 * 16;
    return part;
  }
  float* start = nullptr;
  size_t used = 0;
};

inline int round_up(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

}  // namespace
}  // namespace bac
