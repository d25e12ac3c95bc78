// The kernel: one cooperative launch, a thread block per multiprocessor, for one sample. Compiled for one model and weight format.
#include "loop.hpp"

namespace bac {
#if BAC_HALF
using Stored = Half;
#else
using Stored = float;
#endif
static_assert(sizeof(Params) == BAC_PARAMS, "params.hpp is not what structs.py holds");
}  // namespace bac

extern "C" __global__ void __launch_bounds__(bac::kThreads, 1) bac_denoise(const __grid_constant__ bac::Params p) {
  extern __shared__ __align__(16) char shared[];
  bac::Block block(p, shared, int(blockIdx.x), bac::Team());
  if (block.at.bytes != p.scratch || p.groups != bac::kGroups || p.tokens != block.s.tokens || int(gridDim.x) != block.s.blocks) asm volatile("trap;");
  bac::Grid grid(&block, 1);
  bac::sample<bac::Stored>(grid, p);
}

// Barriers alone, to measure them.
extern "C" __global__ void __launch_bounds__(bac::kThreads, 1) bac_barriers(unsigned* counter, int rounds) {
  for (int i = 1; i <= rounds; ++i) bac::grid_barrier(bac::Team(), counter, unsigned(i) * gridDim.x);
}
