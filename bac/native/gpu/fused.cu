// The fused kernels of a CUDA graph's step, compiled for one width and number of heads.
#include "fused.hpp"

namespace bac {
static_assert(sizeof(Fused) == BAC_PARAMS, "fused.hpp is not what structs.py holds");
}  // namespace bac

#define BAC_KERNEL(name)                                                                              \
  extern "C" __global__ void __launch_bounds__(bac::kThreads) bac_##name(const __grid_constant__ bac::Fused p) { \
    const int item = int(blockIdx.x) * bac::kWarps + bac::thread() / bac::kLanes;                     \
    if (item < p.items) bac::name(p, item);                                                           \
  }

BAC_KERNEL(add_norm)
BAC_KERNEL(attend)
BAC_KERNEL(cross)
BAC_KERNEL(gelu)
BAC_KERNEL(turn)
