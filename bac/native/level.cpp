// One level of the library: compiled once for each, with the name BAC_LEVEL and the options of its instruction sets.
#include "level.hpp"

#include "encoder.hpp"
#include "worker.hpp"

namespace bac {
namespace {

struct Work {
  const Model& m;
  const Call& c;
  Barrier& barrier;
  const Workspace& space;
  float* const* memory;
  bool unit;
};

int largest_group(const Call& c) {
  const int share = (c.batch + c.threads - 1) / c.threads, groups = (share + kGroup - 1) / kGroup;
  return (share + groups - 1) / groups;
}

// All threads on all samples together.
void in_team(void* context, int id) {
  auto& work = *static_cast<Work*>(context);
  use_unit(work.unit);
  Parts parts{work.memory[id]};
  Worker(work.m, work.c, 0, work.c.batch, work.space, work.barrier, id, work.c.threads, parts).run();
  release_unit();
}

// Each thread on its own share, group by group.
void in_shares(void* context, int id) {
  auto& work = *static_cast<Work*>(context);
  const Call& c = work.c;
  use_unit(work.unit);
  const int begin = int(int64_t(c.batch) * id / c.threads), end = int(int64_t(c.batch) * (id + 1) / c.threads);
  const int groups = (end - begin + kGroup - 1) / kGroup;
  for (int group = 0; group < groups; ++group) {
    const int first = begin + (end - begin) * group / groups, last = begin + (end - begin) * (group + 1) / groups;
    Parts parts{work.memory[id]};
    const Workspace space(work.m, c, (last - first) * work.m.tokens, parts);
    Barrier alone(1);
    Worker(work.m, c, first, last - first, space, alone, 0, 1, parts).run();
  }
  release_unit();
}

// Samples are dealt out to threads; if there are fewer samples than threads, all threads work on all of them together. All
// memory is taken before a thread starts.
template <bool Unit>
void sample(const Model& m, const Call& c, Crew& crew) {
  const bool team = c.batch < c.threads;
  const int samples = team ? c.batch : largest_group(c), rows = samples * m.tokens;
  Barrier barrier(team ? c.threads : 1);
  Parts shared, own;
  Workspace space(m, c, rows, shared);
  (void)Worker(m, c, 0, samples, space, barrier, 0, team ? c.threads : 1, own);
  std::vector<float*> memory(static_cast<size_t>(c.threads));
  for (int id = 0; id < c.threads; ++id) memory[size_t(id)] = crew.memory(id, own.used + (team && id ? 0 : shared.used));
  if (team) {
    Parts parts{memory[0] + own.used};
    space = Workspace(m, c, rows, parts);
  }
  Work work{m, c, barrier, space, memory.data(), Unit};
  crew.run(c.threads, team ? in_team : in_shares, &work);
}

struct Look {
  const Encoder& e;
  const Frames& call;
  int first, frames, most;
  const Sight* sight;
  Barrier* barrier;
  float* const* memory;
  bool unit;
};

void look(void* context, int id) {
  const auto& work = *static_cast<Look*>(context);
  use_unit(work.unit);
  Parts own{work.memory[id]};
  Observer(work.e, work.call, work.first, work.frames, work.most, *work.sight, *work.barrier, id, work.call.threads, own).run();
  release_unit();
}

// All threads on some frames together, then on the next ones. All memory is taken before a thread starts.
template <bool Unit>
void encode(const Encoder& e, const Frames& call, Crew& crew) {
  const int groups = (call.frames + kFramesTogether - 1) / kFramesTogether, most = (call.frames + groups - 1) / groups;
  Barrier barrier(call.threads);
  Parts shared, own;
  Sight sight(e, most, shared);
  (void)Observer(e, call, 0, most, most, sight, barrier, 0, call.threads, own);
  std::vector<float*> memory(static_cast<size_t>(call.threads));
  for (int id = 0; id < call.threads; ++id) memory[size_t(id)] = crew.memory(id, own.used + (id ? 0 : shared.used));
  Parts parts{memory[0] + own.used};
  sight = Sight(e, most, parts);
  for (int group = 0; group < groups; ++group) {
    const int first = int(int64_t(call.frames) * group / groups), last = int(int64_t(call.frames) * (group + 1) / groups);
    Look work{e, call, first, last - first, most, &sight, &barrier, memory.data(), Unit};
    crew.run(call.threads, look, &work);
  }
}

template <class W>
double multiply_as(const char* weights, size_t bytes, int rounds, float* out) {
  constexpr int depth = 128;
  constexpr size_t panel = size_t(depth) * kLanes * W::kBytes;
  const size_t panels = bytes / panel / kTilePanels * kTilePanels;
  const int rows = tile_rows<W>();
  alignas(64) static const typename W::Input input[kMostRows * depth] = {};
  alignas(64) float sums[kMostRows * kTilePanels * kLanes];
  for (int round = 0; round < rounds; ++round)
    for (size_t p = 0; p < panels; p += kTilePanels) {
      multiply<W>(rows, kTilePanels, input, depth, weights + p * panel, panel, kLanes * W::kBytes, kTilePanels * long(panel), depth, sums);
      *out += sums[p % (kTileRows * kLanes)];
    }
  release_unit();
  return 2.0 * rounds * double(panels) * kLanes * depth * W::kDepth * rows;
}

template <bool Unit>
double rate(Format format, const char* weights, size_t bytes, int rounds, float* out) {
  use_unit(Unit);
#if defined(BAC_BFLOAT)
  if (format == kBfloat) return multiply_as<BfloatWeights>(weights, bytes, rounds, out);
#endif
  if (format == kHalf) return multiply_as<HalfWeights>(weights, bytes, rounds, out);
#if defined(BAC_BYTES)
  if (format == kByte) return multiply_as<ByteWeights>(weights, bytes, rounds, out);
#endif
  return multiply_as<FloatWeights>(weights, bytes, rounds, out);
}

float read(const char* weights, size_t bytes, int rounds) {
  const auto* p = reinterpret_cast<const float*>(weights);
  const size_t n = bytes / sizeof(float) / (8 * kWidth) * (8 * kWidth);
  vf total[8] = {};
  for (int round = 0; round < rounds; ++round)
    for (size_t i = 0; i < n; i += 8 * kWidth)
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) total[j] += load(p + i + j * kWidth);
  for (int j = 1; j < 8; ++j) total[0] += total[j];
  return sum(total[0]);
}

}  // namespace

#define BAC_TEXT(name) #name
#define BAC_NAME(name) BAC_TEXT(name)
#define BAC_JOIN(a, b) a##b
#define BAC_SYMBOL(name) BAC_JOIN(level_, name)

extern const Level BAC_SYMBOL(BAC_LEVEL);
const Level BAC_SYMBOL(BAC_LEVEL) = {BAC_NAME(BAC_LEVEL), {true, kHasHalf, kHasBfloat, kHasBytes}, sample<false>, encode<false>, rate<false>, read};
#if defined(BAC_AMX)
extern const Level level_amx;
const Level level_amx = {"amx", {true, kHasHalf, kHasBfloat, kHasBytes}, sample<true>, encode<true>, rate<true>, read};
#endif

}  // namespace bac
