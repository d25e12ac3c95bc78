// The whole denoising loop of a Transformer Diffusion Policy in one call, for CPUs, and its vision encoder in another. Compiled on first use, or beforehand by
// `python -m bac build`: the checks of what the caller gives, and the boundary.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "choice.hpp"

using namespace bac;

namespace {

int blocks(const Model& m) { return m.layers * (m.cross ? 3 : 2); }
int round_up(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

void sample(const Model& model, const Call& call) {
  const Lease lease;
  choice(call.level).level->sample(model, call, lease.crew);
}

// ---- what the caller may get wrong ----

bool shaped(const Matrix& w, int64_t n, int64_t k) {
  return w.data && w.bias && w.n == n && w.k == k && fits(w.format, 0, kFormats - 1) && (w.format != kByte || (w.scale && w.sums && k % 4 == 0));
}

// In float or half precision: where activations are not rounded.
bool is_plain(const Matrix& w, const Formats& formats) { return (w.format == kFloat || w.format == kHalf) && formats[w.format]; }

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
  if (!usable(c.level)) return "a level that this processor lacks";
  const Formats formats(c.level);
  if (!formats[m.head.format]) return "weights in a format that this level lacks";
  for (int i = 0; i < m.layers; ++i)
    for (const Matrix* w : {&m.layer[i].qkv, &m.layer[i].out, &m.layer[i].up, &m.layer[i].down})
      if (!formats[w->format]) return "weights in a format that this level lacks";
  if (!fits(c.batch, 1, 1 << 24) || !fits(c.memory, 0, 1 << 16)) return "batch or condition tokens";
  if (!c.trajectory || !c.noise || (c.given && !c.condition)) return "a tensor of the call is missing";
  if (m.cross && !c.cross_mask) return "the mask of the condition is missing";
  if (m.cross && c.memory && !c.observation && (!c.memory_slot || !c.key || !c.bias || !c.value)) return "tables of the condition are missing";
  if (c.observation && (!m.cross || !c.memory)) return "condition tokens of a model that has none";
  if (c.observation) {
    if (!fits(m.cond_embed.k, 1, 1 << 20) || !fits(c.memory, 1, m.cond_tokens) || !m.cond_position) return "the condition encoder";
    if (!shaped(m.cond_embed, m.d, m.cond_embed.k) || !shaped(m.cond_up, 4 * int64_t(m.d), m.d) || !shaped(m.cond_down, m.d, 4 * int64_t(m.d))) return "the condition encoder";
    for (const Matrix* w : {&m.cond_embed, &m.cond_up, &m.cond_down})
      if (!is_plain(*w, formats)) return "the condition encoder";
  }
  for (int i = 0; c.observation && i < m.layers; ++i) {
    if (!shaped(m.layer[i].key_value, 2 * int64_t(m.d), m.d) || !m.layer[i].query_bias) return "the folding of condition tokens";
    if (!formats[m.layer[i].key_value.format] || !m.layer[i].fold_query || !m.layer[i].fold_out) return "the folding of condition tokens";
    for (int head = 0; head < m.heads; ++head)
      for (const Matrix* w : {&m.layer[i].fold_query[head], &m.layer[i].fold_out[head]})
        if (!shaped(*w, m.d, m.d / m.heads) || !is_plain(*w, formats)) return "the folding of condition tokens";
  }
  const int64_t rows = int64_t(c.batch < c.threads ? c.batch : kGroup) * m.tokens;
  if (rows > (1 << 24) || int64_t(m.heads) * (c.memory + 1) > (1 << 24)) return "batch times tokens";
  const int per_layer = m.cross ? 3 : 2, count = blocks(m);
  for (int step = 0; step < m.steps; ++step) {
    if (m.segment_start[step] < 0 || m.segment_start[step] > m.segment_start[step + 1]) return "the plan";
    for (int i = m.segment_start[step]; i < m.segment_start[step + 1]; ++i) {
      const Segment& s = m.segments[i];
      if (!fits(s.start, 0, s.stop) || !fits(s.stop, 0, count) || !fits(s.block, -1, count - 1)) return "the plan";
      if ((s.store || s.start < s.stop) && !m.stores) return "the plan";
      if (s.gap && (!fits(s.gap, 1, step) || !s.store || !m.ahead)) return "the plan";
      if (s.block < 0 || !m.cross || s.block % per_layer != 1) continue;
      if (c.memory && !c.observation && c.memory_slot[s.block / per_layer * m.steps + step] < 0) return "a computed cross-attention without a table";
      if (!c.memory && !m.layer[s.block / per_layer].time_key) return "cross-attention to nothing";
    }
  }
  return nullptr;
}

bool shaped(const Conv& c, int64_t in, const Formats& formats) {
  if (!fits(c.size, 1, 64) || !fits(c.stride, 1, 64) || !fits(c.padding, 0, c.size / 2) || c.channels != in) return false;
  const bool tiled = c.tile != 0;
  if (tiled && ((c.tile != 2 && c.tile != 4) || c.size != 3 || c.stride != 1 || in % kLanes)) return false;
  const int64_t points = tiled ? (c.tile + 2) * (c.tile + 2) : int64_t(c.size) * c.size, k = (points * in + 1) / 2 * 2, n = c.weight.n;
  if (!fits(n, kLanes, 1 << 16) || n % kLanes || !shaped(c.weight, n, k) || c.weight.format == kByte || !formats[c.weight.format]) return false;
  if (!c.norm.gain || !c.norm.shift || !fits(c.norm.groups, 0, n / kLanes)) return false;
  return !c.norm.groups || n % (int64_t(c.norm.groups) * kLanes) == 0;
}

const char* wrong_camera(const Camera& camera, int32_t width, const Formats& formats) {
  constexpr int32_t most = 1 << 14;
  if (!fits(camera.channels, 1, 64) || !fits(camera.height, 1, most) || !fits(camera.width, 1, most)) return "the size of images";
  if (!fits(camera.crop_height, 1, camera.height) || !fits(camera.crop_width, 1, camera.width)) return "the crop";
  if (!fits(camera.top, 0, camera.height - camera.crop_height) || !fits(camera.left, 0, camera.width - camera.crop_width)) return "the crop";
  if (!fits(camera.pool, 1, 64) || !fits(camera.pool_stride, 1, 64) || !fits(camera.pool_padding, 0, camera.pool / 2)) return "the pooling";
  if (!shaped(camera.stem, camera.channels, formats)) return "the first convolution";
  if (!fits(camera.blocks, 1, 1024) || !camera.block) return "the blocks";
  struct { int height, width; } shape{camera.crop_height, camera.crop_width};
  auto slide = [&shape](int size, int stride, int padding) {
    shape = {(shape.height + 2 * padding - size) / stride + 1, (shape.width + 2 * padding - size) / stride + 1};
    return shape.height > 0 && shape.width > 0;
  };
  auto slide_over = [&](const Conv& c) { return slide(c.size, c.stride, c.padding); };
  if (!slide_over(camera.stem) || !slide(camera.pool, camera.pool_stride, camera.pool_padding)) return "the size of images";
  int32_t channels = camera.stem.weight.n;
  for (int i = 0; i < camera.blocks; ++i) {
    const Residual& block = camera.block[i];
    const int32_t n = block.second.weight.n;
    const bool shortcut = block.shortcut.weight.data;
    if (!shaped(block.first, channels, formats) || !shaped(block.second, block.first.weight.n, formats)) return "a block";
    if (shortcut ? !shaped(block.shortcut, channels, formats) || block.shortcut.weight.n != n : n != channels) return "a shortcut";
    const auto before = shape;
    if (shortcut && !slide_over(block.shortcut)) return "a shortcut";
    const auto added = shape;
    shape = before;
    if (!slide_over(block.first) || !slide_over(block.second)) return "the size of images";
    if (shape.height != added.height || shape.width != added.width) return "a shortcut";
    channels = n;
  }
  if (!fits(camera.keypoints, 1, 1 << 12) || !shaped(camera.keypoint, round_up(camera.keypoints), channels)) return "the key points";
  if (!camera.column || !camera.row || !is_plain(camera.keypoint, formats)) return "the key points";
  if (!fits(camera.features, 1, width) || !fits(camera.at, 0, width - camera.features)) return "the features";
  if (!shaped(camera.linear, round_up(camera.features), 2 * int64_t(camera.keypoints))) return "the linear layer";
  return is_plain(camera.linear, formats) ? nullptr : "the linear layer";
}

const char* wrong_frames(const Encoder& e, const Frames& call) {
  if (!fits(e.cameras, 1, 1024) || !fits(e.width, 1, 1 << 20) || !e.camera) return "cameras";
  if (!fits(call.threads, 1, kMaxThreads)) return "threads";
  if (!usable(call.level)) return "a level that this processor lacks";
  if (!fits(call.frames, 1, 1 << 24) || !call.image || !call.out) return "frames";
  for (int i = 0; i < e.cameras; ++i) {
    if (!call.image[i]) return "frames";
    if (const char* wrong = wrong_camera(e.camera[i], e.width, Formats(call.level))) return wrong;
  }
  return nullptr;
}

enum Status : int32_t { kDone = 0, kNoThreads = 1, kNoMemory = 2, kWrongSizes = 3, kFailed = 4 };

int32_t report(Status status, const char* text, char* message, int32_t size) noexcept {
  if (message && size > 0) std::snprintf(message, size_t(size), "%s", text);
  return status;
}

// Status of `work`, which gives what is wrong with the sizes, or null where it was done.
template <class Work>
int32_t guarded(char* message, int32_t size, Work&& work) noexcept {
  try {
    const char* wrong = work();
    return wrong ? report(kWrongSizes, wrong, message, size) : int32_t(kDone);
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

}  // namespace

// The boundary: nothing C++ crosses it. Every entry point is noexcept, and a failure is a status with a message.

// Writes at most `capacity` numbers of the layout and returns how many there are.
extern "C" int32_t bac_layout(int32_t* numbers, int32_t capacity) noexcept {
  const int32_t count = int32_t(sizeof(kLayout) / sizeof(kLayout[0]));
  for (int32_t i = 0; i < count && i < capacity; ++i) numbers[i] = kLayout[i];
  return count;
}

// Name of a level, or null beyond the last one.
extern "C" const char* bac_level_name(int32_t level) noexcept {
  return fits(level, 0, levels().count - 1) ? choice(level).level->name : nullptr;
}

// Whether this processor and system can run a level.
extern "C" int32_t bac_level_usable(int32_t level) noexcept { return usable(level); }

// Whether a level multiplies weights of a format.
extern "C" int32_t bac_level_format(int32_t level, int32_t format) noexcept {
  return fits(level, 0, levels().count - 1) && fits(format, 0, kFormats - 1) && Formats(level)[format];
}

// Denoises call->batch samples in place. On a failure the trajectory is undefined and all threads have ended.
extern "C" int32_t bac_sample(const Model* model, const Call* call, char* message, int32_t size) noexcept {
  return guarded(message, size, [=] {
    const char* wrong = model && call ? wrong_model(*model) : "no model or call";
    if (!wrong) wrong = wrong_call(*model, *call);
    if (!wrong) sample(*model, *call);
    return wrong;
  });
}

// Encodes call->frames frames of every camera into call->out, likewise.
extern "C" int32_t bac_encode(const Encoder* encoder, const Frames* call, char* message, int32_t size) noexcept {
  return guarded(message, size, [=] {
    const char* wrong = encoder && call ? wrong_frames(*encoder, *call) : "no encoder or call";
    if (!wrong) {
      const Lease lease;
      choice(call->level).level->encode(*encoder, *call, lease.crew);
    }
    return wrong;
  });
}

// What one level does at best on `threads` threads with an array of `bytes` each: with a format, the arithmetic of a product
// of such weights in GFLOP/s; with format -1, reading it in GB/s. `bytes` that fit the first caches measure the units alone.
// The best of `repeats` short runs, since something else may take the processor away in a long one.
extern "C" int32_t bac_rate(int32_t level, int32_t format, int32_t threads, int64_t bytes, int32_t repeats, double* rate) noexcept {
  constexpr int64_t kLeast = 1 << 15;
  if (!usable(level) || !fits(threads, 1, kMaxThreads) || !fits(bytes, kLeast, int64_t(1) << 40) || !rate) return kWrongSizes;
  if (!fits(format, -1, kFormats - 1) || (format >= 0 && !Formats(level)[format])) return kWrongSizes;
  struct Measure {
    const Level& level;
    int32_t format;
    size_t bytes;
    int rounds;
    std::vector<float*> memory;
    std::vector<double> done;
  };
  try {
    const Lease lease;
    const size_t line = 4096;
    Measure measure{*choice(level).level, format, size_t(bytes), 1, {}, std::vector<double>(size_t(threads))};
    std::vector<std::unique_ptr<float[]>> arrays;
    for (int id = 0; id < threads; ++id) {
      arrays.emplace_back(new float[(size_t(bytes) + line) / sizeof(float)]());
      const auto at = reinterpret_cast<uintptr_t>(arrays.back().get());
      measure.memory.push_back(arrays.back().get() + (line - at % line) % line / sizeof(float));
    }
    const Crew::Task task = [](void* context, int id) {
      auto& own = *static_cast<Measure*>(context);
      const auto* array = reinterpret_cast<const char*>(own.memory[size_t(id)]);
      static thread_local volatile float sink;
      float out = 0;
      if (own.format >= 0) own.done[size_t(id)] = own.level.multiply(Format(own.format), array, own.bytes, own.rounds, &out);
      else out = own.level.read(array, own.bytes, own.rounds), own.done[size_t(id)] = double(own.rounds) * double(own.bytes);
      sink = out;
    };
    using Clock = std::chrono::steady_clock;
    *rate = 0;
    for (int run = 0; run < repeats;) {
      const auto begin = Clock::now();
      lease.crew.run(threads, task, &measure);
      const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      double total = 0;
      for (double done : measure.done) total += done;
      if (seconds < 2e-4) measure.rounds *= 2;  // too short for the clock
      else *rate = std::max(*rate, total / seconds * 1e-9), ++run;
    }
    return kDone;
  } catch (...) {
    return kFailed;
  }
}
