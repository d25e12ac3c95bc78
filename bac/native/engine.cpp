// The whole denoising loop of a Transformer Diffusion Policy in one call, for CPUs. Compiled on first use, or beforehand by
// `python -m bac build`: threads, the checks of what the caller gives, and the boundary.
#include <atomic>
#include <cstdio>
#include <deque>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "worker.hpp"

namespace {

// Holds the threads of a team back until all of them exist: one that is missing would leave the others at a barrier.
struct Gate {
  bool wait() const {
    int now;
    while (!(now = state.load(std::memory_order_acquire))) std::this_thread::yield();
    return now > 0;
  }
  void open(bool go) { state.store(go ? 1 : -1, std::memory_order_release); }
  std::atomic<int> state{0};
};

// Threads that are joined whatever happens; `abandon` tells those that wait for the rest to give up.
template <class Abandon>
struct Pool {
  explicit Pool(Abandon abandon) : abandon(abandon) {}
  ~Pool() {
    if (!complete) abandon();
    for (auto& thread : threads) thread.join();
  }
  template <class F>
  void start(int count, F&& task) {
    threads.reserve(size_t(count));
    for (int id = 1; id <= count; ++id) threads.emplace_back(task, id);
    complete = true;
  }
  std::vector<std::thread> threads;
  Abandon abandon;
  bool complete = false;
};

// Denoises samples [first, first + count) with a team of threads. All memory is taken before a thread starts.
void denoise(const Model& m, const Call& c, int first, int count, int team) {
  Workspace space(m, count * m.tokens, blocks(m));
  Barrier barrier(team);
  std::deque<Worker> workers;
  for (int id = 0; id < team; ++id) workers.emplace_back(m, c, first, count, space, barrier, id, team);
  Gate gate;
  auto abandon = [&] { gate.open(false); };
  Pool<decltype(abandon)> others(abandon);
  others.start(team - 1, [&](int id) {
    if (gate.wait()) workers[size_t(id)].run();
  });
  gate.open(true);
  workers[0].run();
}

// Samples that one thread takes through the loop together: enough rows to reuse each weight it reads, few enough that
// their activations and stored outputs stay in its second-level cache.
constexpr int kGroup = 8;

// Denoises c.batch samples on c.threads threads. Samples are dealt out to threads; if there are fewer samples than
// threads, all threads work on all of them together.
void sample(const Model& model, const Call& call) {
  const int threads = call.threads;
  if (call.batch < threads) return denoise(model, call, 0, call.batch, threads);
  auto share = [&](int thread) {
    const int64_t batch = call.batch;
    const int begin = int(batch * thread / threads), end = int(batch * (thread + 1) / threads);
    const int groups = (end - begin + kGroup - 1) / kGroup;
    for (int group = 0; group < groups; ++group) {
      const int first = begin + (end - begin) * group / groups, last = begin + (end - begin) * (group + 1) / groups;
      denoise(model, call, first, last - first, 1);
    }
  };
  std::exception_ptr failure;
  std::mutex lock;
  auto guarded = [&](int thread) noexcept {
    try {
      share(thread);
    } catch (...) {
      const std::lock_guard<std::mutex> held(lock);
      if (!failure) failure = std::current_exception();
    }
  };
  {
    auto abandon = [] {};  // these threads wait for nobody
    Pool<decltype(abandon)> pool(abandon);
    pool.start(threads - 1, guarded);
    guarded(0);
  }
  if (failure) std::rethrow_exception(failure);
}

// ---- what the caller may get wrong ----

bool fits(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }
bool shaped(const Matrix& w, int64_t n, int64_t k) { return w.data && w.bias && w.n == n && w.k == k; }

// The first thing that does not fit, or null. What a pointer leads to cannot be checked here beyond being there.
const char* wrong_model(const Model& m) {
  if (!fits(m.layers, 1, 4096) || !fits(m.d, kLanes, 1 << 16) || m.d % kLanes) return "layers or width";
  if (!fits(m.heads, 1, m.d) || m.d % m.heads) return "heads";
  if (!fits(m.tokens, 1, 1 << 16) || !fits(m.skip, 0, m.tokens - 1) || !fits(m.cross, 0, 1)) return "tokens";
  if (!fits(m.d_in, 1, 1 << 16) || !fits(m.d_out, m.d_in, 1 << 16) || !fits(m.steps, 1, 1 << 20)) return "trajectory or steps";
  if (!m.embed || !m.position || !m.self_mask || !m.final_gain || !m.final_shift || !m.layer) return "a table of the model is missing";
  if (!m.segments || !m.segment_start || !m.solver || (m.skip && !m.time_rows)) return "a table of the plan is missing";
  if (!shaped(m.head, round_up(m.d_out), m.d)) return "the head";
  for (int i = 0; i < m.layers; ++i) {
    const Layer& l = m.layer[i];
    if (!shaped(l.qkv, round_up(3 * m.d), m.d) || !shaped(l.out, m.d, m.d)) return "attention weights";
    if (!shaped(l.up, 4 * int64_t(m.d), m.d) || !shaped(l.down, m.d, 4 * int64_t(m.d))) return "feed-forward weights";
    if (!l.norm1_gain || !l.norm1_shift || !l.norm2_gain || !l.norm2_shift) return "a norm is missing";
    if (m.cross && (!l.norm3_gain || !l.norm3_shift || !l.cross_bias)) return "cross-attention is missing";
    if (l.time_key && (!l.time_bias || !l.time_value)) return "tables of the time token are missing";
  }
  return nullptr;
}

const char* wrong_call(const Model& m, const Call& c) {
  if (!fits(c.threads, 1, kMaxThreads)) return "threads";
  if (!fits(c.batch, 1, 1 << 24) || !fits(c.memory, 0, 1 << 16)) return "batch or condition tokens";
  if (!c.trajectory || !c.noise || (c.given && !c.condition)) return "a tensor of the call is missing";
  if (m.cross && !c.cross_mask) return "the mask of the condition is missing";
  if (m.cross && c.memory && (!c.memory_slot || !c.key || !c.bias || !c.value)) return "tables of the condition are missing";
  const int64_t rows = int64_t(c.batch < c.threads ? c.batch : kGroup) * m.tokens;
  if (rows > (1 << 24) || int64_t(m.heads) * (c.memory + 1) > (1 << 24)) return "batch times tokens";
  const int per_layer = m.cross ? 3 : 2, count = blocks(m);
  for (int step = 0; step < m.steps; ++step) {
    if (m.segment_start[step] < 0 || m.segment_start[step] > m.segment_start[step + 1]) return "the plan";
    for (int i = m.segment_start[step]; i < m.segment_start[step + 1]; ++i) {
      const Segment& s = m.segments[i];
      if (!fits(s.start, 0, s.stop) || !fits(s.stop, 0, count) || !fits(s.block, -1, count - 1)) return "the plan";
      if (s.gap && (!fits(s.gap, 1, step) || !s.store || !m.ahead)) return "the plan";
      if (s.block < 0 || !m.cross || s.block % per_layer != 1) continue;
      if (c.memory && c.memory_slot[s.block / per_layer * m.steps + step] < 0) return "a computed cross-attention without a table";
      if (!c.memory && !m.layer[s.block / per_layer].time_key) return "cross-attention to nothing";
    }
  }
  return nullptr;
}

enum Status : int32_t { kDone = 0, kNoThreads = 1, kNoMemory = 2, kWrongSizes = 3, kFailed = 4 };

int32_t report(Status status, const char* text, char* message, int32_t size) noexcept {
  if (message && size > 0) std::snprintf(message, size_t(size), "%s", text);
  return status;
}

}  // namespace

// The boundary: nothing C++ crosses it. Every entry point is noexcept, and a failure is a status with a message.

// Writes at most `capacity` numbers of the layout and returns how many there are.
extern "C" int32_t bac_layout(int32_t* numbers, int32_t capacity) noexcept {
  const int32_t count = int32_t(sizeof(kLayout) / sizeof(kLayout[0]));
  for (int32_t i = 0; i < count && i < capacity; ++i) numbers[i] = kLayout[i];
  return count;
}

extern "C" int32_t bac_half_weights() noexcept { return kHalfWeights; }

// Denoises call->batch samples in place. On a failure the trajectory is undefined and all threads have ended.
extern "C" int32_t bac_sample(const Model* model, const Call* call, char* message, int32_t size) noexcept {
  try {
    if (!model || !call) return report(kWrongSizes, "no model or call", message, size);
    const char* wrong = wrong_model(*model);
    if (!wrong) wrong = wrong_call(*model, *call);
    if (wrong) return report(kWrongSizes, wrong, message, size);
    sample(*model, *call);
    return kDone;
  } catch (const std::system_error& error) {
    return report(kNoThreads, error.what(), message, size);
  } catch (const std::bad_alloc& error) {
    return report(kNoMemory, error.what(), message, size);
  } catch (const std::length_error& error) {
    return report(kNoMemory, error.what(), message, size);
  } catch (const std::exception& error) {
    return report(kFailed, error.what(), message, size);
  } catch (...) {
    return report(kFailed, "an unknown exception", message, size);
  }
}
