// The CPU form of the fused kernels: their warps one after another, for any width.
#include "fused.hpp"

namespace bac {
namespace {

static_assert(sizeof(Fused) == BAC_PARAMS, "fused.hpp is not what structs.py holds");

template <class F>
void each(const Fused* p, F f) {
  for (int item = 0; item < p->items; ++item) f(*p, item);
}

}  // namespace
}  // namespace bac

#define BAC_KERNEL(name) \
  extern "C" void bac_##name(const bac::Fused* p) { bac::each(p, bac::name); }

BAC_KERNEL(add_norm)
BAC_KERNEL(attend)
BAC_KERNEL(cross)
BAC_KERNEL(gelu)
BAC_KERNEL(turn)
