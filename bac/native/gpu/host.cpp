// The CPU form of the kernel, for tests and sanitizers: the same phases, with thread blocks that run one after another between
// barriers, or with a thread for each warp of each thread block.
#include <memory>
#include <vector>

#include "loop.hpp"

namespace bac {
namespace {

static_assert(sizeof(Params) == BAC_PARAMS, "params.hpp is not what structs.py holds");

void run(Grid& grid, const Params& p) {
  if (p.half) sample<Half>(grid, p);
  else sample<float>(grid, p);
}

// Shared memory of a thread block; each has its own allocation, so that a sanitizer sees its ends.
using Shared = std::unique_ptr<Quad[]>;
Shared shared_memory(const Params& p) { return Shared(new Quad[size_t(p.resident + p.scratch) / sizeof(Quad)]); }

void one_after_another(const Params& p, int blocks) {
  std::vector<Shared> memory;
  std::vector<Block> all;
  all.reserve(size_t(blocks));
  for (int i = 0; i < blocks; ++i) {
    memory.push_back(shared_memory(p));
    all.emplace_back(p, reinterpret_cast<char*>(memory.back().get()), i, Team());
  }
  Grid grid(all.data(), blocks);
  run(grid, p);
}

void at_once(const Params& p, int blocks) {
  std::vector<Shared> memory;
  std::vector<std::unique_ptr<Meeting>> meetings;
  std::vector<std::thread> threads;
  for (int i = 0; i < blocks; ++i) {
    memory.push_back(shared_memory(p));
    meetings.emplace_back(new Meeting(kWarps));
    for (int warp = 0; warp < kWarps; ++warp)
      threads.emplace_back([&p, i, warp, shared = reinterpret_cast<char*>(memory.back().get()), meeting = meetings.back().get()] {
        Team team;
        team.begin = warp, team.end = warp + 1, team.meeting = meeting;
        Block block(p, shared, i, team);
        Grid grid(&block, 1);
        run(grid, p);
      });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace bac

// Denoises one sample as `blocks` thread blocks would; `threads`: all warps at once. Gives 1 where sizes do not fit.
extern "C" int bac_denoise(const bac::Params* p, int blocks, int threads) {
  const bac::Sizes s(*p);
  if (p->groups != bac::kGroups || s.tokens > bac::kTile || s.observed > bac::kTile || s.width > bac::Sizes::kColumns * bac::kLanes) return 1;
  if (p->tokens != s.tokens || blocks < 1 || blocks != s.blocks || blocks > s.width || (threads && blocks < 2)) return 1;
  if (bac::Scratch(s).bytes != p->scratch || p->scratch % 16 || p->resident % 16) return 1;
  if (threads) bac::at_once(*p, blocks);
  else bac::one_after_another(*p, blocks);
  return 0;
}
