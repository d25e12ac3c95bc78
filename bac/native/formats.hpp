// Number formats of packed weights, and what one of them multiplies: each has
//   Input           what activations are converted to beforehand,
//   Sum, zero       a vector of sums,
//   get(p), kBytes  a vector of weights, and the bytes of one column's share in it,
//   kDepth          how many rows of the matrix one vector holds,
//   add             sums + weights * input, in one order for every row.
#pragma once
#include "layout.hpp"
#include "simd.hpp"

namespace bac {
namespace {

struct FloatWeights {
  using Input = float;
  using Weights = vf;
  static constexpr int kBytes = 4, kDepth = 1;
  static vf get(const char* p) { return load(reinterpret_cast<const float*>(p)); }
  static vf add(vf total, vf w, float x) { return total + w * x; }
};

#if defined(__F16C__)
constexpr bool kHasHalf = true;
// Half precision, widened on load (exact).
struct HalfWeights : FloatWeights {
  static constexpr int kBytes = 2;
  static vf get(const char* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<vf>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#else
    return reinterpret_cast<vf>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#endif
  }
};
#else
constexpr bool kHasHalf = false;
using HalfWeights = FloatWeights;  // never packed: see kHasHalf
#endif

// bfloat16 pairs: a vector holds two rows of the matrix, and so does an input. Sums are float.
#if defined(__AVX512BF16__)
constexpr bool kHasBfloat = true;
struct BfloatWeights {
  using Input = uint32_t;
  using Weights = __m512i;
  static constexpr int kBytes = 4, kDepth = 2;
  static __m512i get(const char* p) { return _mm512_loadu_si512(p); }
  static vf add(vf total, __m512i w, uint32_t x) {
    return reinterpret_cast<vf>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(total), reinterpret_cast<__m512bh>(w),
                                                 reinterpret_cast<__m512bh>(_mm512_set1_epi32(int32_t(x)))));
  }
  // Rounds n numbers, a multiple of 16, to the nearest bfloat16.
  static void narrow(const float* x, Input* out, size_t n) {
    for (size_t i = 0; i < n; i += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i / 2),
                          reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(x + i))));
  }
};
#else
constexpr bool kHasBfloat = false;
#endif

}  // namespace
}  // namespace bac
