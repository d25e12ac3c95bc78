// Threads that are kept between calls, each with memory of its own. Calls that run at the same time have a crew each.
#pragma once
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bac {

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Crew {
 public:
  using Task = void (*)(void* context, int id);

  // Runs task(context, id) for ids 0 (here) to threads - 1 at once, and returns when all have ended; the task throws nothing.
  // If a thread cannot be started none has begun, those that were started for it have ended, and std::system_error is thrown.
  void run(int threads, Task what, void* with) {
    hire(threads - 1);
    task = what, context = with;
    left.store(threads - 1, std::memory_order_relaxed);
    bool sleepers = false;
    {
      const std::lock_guard<std::mutex> held(lock);
      job.store(((job.load(std::memory_order_relaxed) >> kIds) + 1) << kIds | uint64_t(threads), std::memory_order_release);
      sleepers = asleep > 0;
    }
    if (sleepers) wake.notify_all();
    task(context, 0);
    for (int spins = 0; left.load(std::memory_order_acquire) > 0; ++spins) spins < kSpins ? relax() : std::this_thread::yield();
  }

  // At least `floats` of memory of thread `id`, aligned to cache lines; what it held before is gone or not.
  float* memory(int id, size_t floats) {
    if (memories.size() <= size_t(id)) memories.resize(size_t(id) + 1);
    Memory& own = memories[size_t(id)];
    const size_t line = 16;
    if (own.size < floats + line) {
      own.start.reset();
      own.size = 0;
      own.start.reset(new float[floats + line]);
      own.size = floats + line;
    }
    const auto at = reinterpret_cast<uintptr_t>(own.start.get());
    return own.start.get() + (64 - at % 64) % 64 / sizeof(float);
  }

  // Of this process, not in use; to be given back. A child of fork() has none of its parent's threads and makes its own.
  static Crew* take() {
    Idle& all = idle();
    const std::lock_guard<std::mutex> held(all.lock);
    if (all.crews.empty()) return new Crew;
    Crew* crew = all.crews.back();
    all.crews.pop_back();
    return crew;
  }
  static void give_back(Crew* crew) noexcept {
    Idle& all = idle();
    const std::lock_guard<std::mutex> held(all.lock);
    all.crews.push_back(crew);
  }

 private:
  static constexpr int kIds = 16;        // bits of a job that say how many threads take part
  static constexpr int kSpins = 2000;   // some 50 us: more than a gap inside a call, less than a control period

  struct Memory {
    std::unique_ptr<float[]> start;
    size_t size = 0;
  };
  struct Idle {
    std::mutex lock;
    std::vector<Crew*> crews;
    Idle() { crews.reserve(1024); }
  };

  // Never destroyed: threads may still sleep when the process ends.
  static Idle& idle() {
    static Idle* all = [] {
      auto* made = new Idle;
      pthread_atfork(nullptr, nullptr, [] { new (&idle()) Idle; });
      return made;
    }();
    return *all;
  }

  void hire(int count) {
    const size_t before = threads.size();
    if (before >= size_t(count)) return;
    try {
      threads.reserve(size_t(count));
      const uint64_t now = job.load(std::memory_order_relaxed);
      while (threads.size() < size_t(count)) {
        const int id = int(threads.size()) + 1;
        threads.emplace_back([this, id, now] { serve(id, now); });
      }
    } catch (...) {
      dismiss(before);
      throw;
    }
  }

  // Ends the threads from number `keep` on.
  void dismiss(size_t keep) {
    {
      const std::lock_guard<std::mutex> held(lock);
      kept.store(int(keep), std::memory_order_release);
      job.store(((job.load(std::memory_order_relaxed) >> kIds) + 1) << kIds, std::memory_order_release);
    }
    wake.notify_all();
    for (size_t i = keep; i < threads.size(); ++i) threads[i].join();
    threads.resize(keep);
    kept.store(1 << kIds, std::memory_order_release);
  }

  void serve(int id, uint64_t seen) noexcept {
    for (;;) {
      uint64_t now = seen;
      for (int spins = 0; spins < kSpins && (now = job.load(std::memory_order_acquire)) == seen; ++spins) relax();
      if (now == seen) {
        std::unique_lock<std::mutex> held(lock);
        ++asleep;
        wake.wait(held, [&] { return (now = job.load(std::memory_order_acquire)) != seen; });
        --asleep;
      }
      seen = now;
      const int wanted = int(now & ((1 << kIds) - 1));
      if (wanted == 0 && id > kept.load(std::memory_order_acquire)) return;
      if (id >= wanted) continue;
      task(context, id);
      left.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> threads;
  std::vector<Memory> memories;
  std::mutex lock;
  std::condition_variable wake;
  std::atomic<uint64_t> job{0};  // number of the job, and how many threads it wants: read together
  std::atomic<int> left{0}, kept{1 << kIds};
  int asleep = 0;
  Task task = nullptr;
  void* context = nullptr;
};

// A crew for as long as a call takes.
struct Lease {
  Lease() : crew(*Crew::take()) {}
  ~Lease() { Crew::give_back(&crew); }
  Lease(const Lease&) = delete;
  Crew& crew;
};

}  // namespace bac
