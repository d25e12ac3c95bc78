// Number formats of packed weights, and what one of them multiplies: each has
//   Input           what activations are converted to beforehand,
//   Sum, value      a vector of sums, and the numbers it stands for,
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
  using Sum = vf;
  static constexpr int kBytes = 4, kDepth = 1;
  static vf value(vf total) { return total; }
  static vf get(const char* p) { return load(reinterpret_cast<const float*>(p)); }
  static vf add(vf total, vf w, float x) { return total + w * x; }
};

#if defined(__F16C__) || defined(__aarch64__)
constexpr bool kHasHalf = true;
// Half precision, widened on load (exact).
struct HalfWeights : FloatWeights {
  static constexpr int kBytes = 2;
  static vf get(const char* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<vf>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__aarch64__)
    return reinterpret_cast<vf>(vcvt_f32_f16(vld1_f16(reinterpret_cast<const float16_t*>(p))));
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
#define BAC_BFLOAT
// Rounds a vector to the nearest bfloat16.
inline void store_narrow(uint16_t* to, vf value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(value))));
}
struct BfloatWeights {
  using Input = uint32_t;
  using Weights = __m512i;
  using Sum = vf;
  static constexpr int kBytes = 4, kDepth = 2;
  static vf value(vf total) { return total; }
  static __m512i get(const char* p) { return _mm512_loadu_si512(p); }
  static vf add(vf total, __m512i w, uint32_t x) {
    return reinterpret_cast<vf>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(total), reinterpret_cast<__m512bh>(w),
                                                 reinterpret_cast<__m512bh>(_mm512_set1_epi32(int32_t(x)))));
  }
};
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define BAC_BFLOAT
inline void store_narrow(uint16_t* to, vf value) {
  vst1_bf16(reinterpret_cast<bfloat16_t*>(to), vcvt_bf16_f32(reinterpret_cast<float32x4_t>(value)));
}
struct BfloatWeights {
  using Input = uint32_t;
  using Weights = bfloat16x8_t;
  using Sum = vf;
  static constexpr int kBytes = 4, kDepth = 2;
  static vf value(vf total) { return total; }
  static bfloat16x8_t get(const char* p) { return vld1q_bf16(reinterpret_cast<const bfloat16_t*>(p)); }
  static vf add(vf total, bfloat16x8_t w, uint32_t x) {
    return reinterpret_cast<vf>(vbfdotq_f32(reinterpret_cast<float32x4_t>(total), w, vreinterpretq_bf16_u32(vdupq_n_u32(x))));
  }
};
#endif

#if defined(BAC_BFLOAT)
constexpr bool kHasBfloat = true;
// Rounds n numbers, a multiple of 16.
inline void narrow_bfloat(const float* x, uint32_t* out, size_t n) {
  for (size_t i = 0; i < n; i += kWidth) store_narrow(reinterpret_cast<uint16_t*>(out) + i, load(x + i));
}
#else
constexpr bool kHasBfloat = false;
#endif

// Bytes: four rows of the matrix in one vector, sums in int32, which hold them exactly. On x86 they are multiplied by VNNI, an
// instruction set of its own beside those of a level: BAC_BYTES names it for the functions that use it, and engine.cpp asks
// the processor for it before they are called.
#if defined(__AVX512BW__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define BAC_BYTES gnu::target("avx512vnni")
#elif defined(__AVX2__) && !defined(__AVX512F__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define BAC_BYTES gnu::target("avxvnni")
#elif defined(__ARM_FEATURE_DOTPROD)
#define BAC_BYTES maybe_unused  // the level itself has it
#endif
#if defined(BAC_BYTES)
constexpr bool kHasBytes = true;
struct ByteWeights {
  using Input = uint32_t;
  using Weights = vi;
  using Sum = vi;
  static constexpr int kBytes = 4, kDepth = 4;
  static vf value(vi total) { return __builtin_convertvector(total, vf); }
  static vi get(const char* p) { return *reinterpret_cast<const vi_unaligned*>(p); }
  [[BAC_BYTES]] static vi add(vi total, vi w, uint32_t x) {
#if defined(__AVX512BW__)
    return reinterpret_cast<vi>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(total), _mm512_set1_epi32(int32_t(x)), reinterpret_cast<__m512i>(w)));
#elif defined(__aarch64__)
    const int8x16_t weights = reinterpret_cast<int8x16_t>(w), input = vreinterpretq_s8_u32(vdupq_n_u32(x));
    return reinterpret_cast<vi>(vdotq_s32(reinterpret_cast<int32x4_t>(total), weights, input));
#else
    return reinterpret_cast<vi>(_mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(total), _mm256_set1_epi32(int32_t(x)), reinterpret_cast<__m256i>(w)));
#endif
  }
  // A row of n numbers, a multiple of 16, as bytes u with x = low + step * u; from the smallest to the largest of them. Bytes
  // go from 0, where both factors are signed from -128.
  struct Range {
    float low, step;
  };
  static Range narrow(const float* x, Input* out, int n) {
    vf low = load(x), high = low, odd{};
    for (int i = 0; i < n; i += kWidth) {
      const vf v = load(x + i);
      low = min(low, v), high = max(high, v), odd += v * 0.0f;
    }
    float least = low[0], most = high[0];
    for (int i = 1; i < kWidth; ++i) least = low[i] < least ? low[i] : least, most = high[i] > most ? high[i] : most;
    const float step = (most - least) / 255, inverse = step > 0 ? 1 / step : 0;
#if defined(__aarch64__)
    constexpr float first = -128;
    auto* bytes = reinterpret_cast<int8_t*>(out);
#else
    constexpr float first = 0;
    auto* bytes = reinterpret_cast<uint8_t*>(out);
#endif
    for (int i = 0; i < n; i += kLanes)
#if defined(__AVX512BW__)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(reinterpret_cast<__m512>((load(x + i) - least) * inverse))));
#elif defined(__aarch64__)
    {
      const auto whole = [&](int at) {
        return vmovn_s32(vcvtnq_s32_f32(reinterpret_cast<float32x4_t>((load(x + at) - least) * inverse + first)));
      };
      const int16x8_t low8 = vcombine_s16(whole(i), whole(i + 4)), high8 = vcombine_s16(whole(i + 8), whole(i + 12));
      vst1q_s8(bytes + i, vcombine_s8(vqmovn_s16(low8), vqmovn_s16(high8)));
    }
#else
    {
      const auto whole = [&](int at) { return _mm256_cvtps_epi32(reinterpret_cast<__m256>((load(x + at) - least) * inverse)); };
      const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packus_epi32(whole(i), whole(i + kWidth)), 0xd8);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i), _mm_packus_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
    }
#endif
    return {least - first * step + sum(odd), step};  // what is not finite is NaN in the whole row
  }
};
#else
constexpr bool kHasBytes = false;
#endif

}  // namespace
}  // namespace bac
