// Vectors of the level this file is compiled for, and the arithmetic on them. Everything here has internal linkage: the
// same names are compiled once per level, and a linker must not take one level's code for another's.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "layout.hpp"

namespace bac {
namespace {

// Register tile: rows times panels. Its sums and one row of weights fit the registers.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kTileRows = 9, kTilePanels = 3;
#elif defined(__AVX__)
constexpr int kWidth = 8, kTileRows = 6, kTilePanels = 1;
#elif defined(__aarch64__)
constexpr int kWidth = 4, kTileRows = 6, kTilePanels = 1;
#else
constexpr int kWidth = 4, kTileRows = 2, kTilePanels = 1;
#endif
constexpr int kParts = kLanes / kWidth;  // vectors of a panel

typedef float vf __attribute__((vector_size(4 * kWidth)));
typedef float vf_unaligned __attribute__((vector_size(4 * kWidth), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * kWidth)));
typedef int32_t vi_unaligned __attribute__((vector_size(4 * kWidth), aligned(4)));

inline vf splat(float v) { return v - vf{}; }
inline vf load(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
inline void store(float* p, vf v) { *reinterpret_cast<vf_unaligned*>(p) = v; }
inline vf max(vf a, vf b) { return a > b ? a : b; }
inline vf min(vf a, vf b) { return a < b ? a : b; }

// Pairs, then pairs of pairs: one after the other, each lane would wait for the one before.
inline float sum(vf v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(reinterpret_cast<__m512>(v));
#elif defined(__AVX__)
  const __m256 all = reinterpret_cast<__m256>(v);
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#elif defined(__aarch64__)
  return vaddvq_f32(reinterpret_cast<float32x4_t>(v));
#else
  float part[kWidth];
  store(part, v);
  for (int half = kWidth / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  return part[0];
#endif
}

// The sum of a[j] * b[j] over d numbers, a multiple of 16.
inline float dot(const float* a, const float* b, int d) {
  vf total[kLanes / kWidth] = {};
  for (int j = 0; j < d; j += kLanes)
    for (int i = 0; i < kLanes / kWidth; ++i) total[i] += load(a + j + i * kWidth) * load(b + j + i * kWidth);
  for (int i = 1; i < kLanes / kWidth; ++i) total[0] += total[i];
  return sum(total[0]);
}

// exp(x): 2^n * e^r with |r| <= ln(2)/2 and a degree-6 polynomial; relative error about 1e-7. 0 below -80, so that weights of
// a softmax do not become subnormal, which are slow. NaN stays NaN: `max` and `min` return their second argument for it.
inline vf exp(vf x) {
  const vf low = splat(-80.0f);
  const vf y = max(low, min(splat(88.0f), x));
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vf n = (y * 1.44269504f + magic) - magic;
  const vf r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  vf p = splat(1.0f / 720);
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const vi bits = (__builtin_convertvector(n, vi) + 127) << 23;
  const vf result = p * reinterpret_cast<vf>(bits);
  return x < low ? vf{} : result;
}

// GELU(x) = x/2 (1 + erf(x / sqrt 2)); erf(u) = u P(u^2)/Q(u^2) on |u| <= 4, a least-squares fit with error 6e-8.
inline vf gelu(vf x) {
  const vf u = max(min(x * 0.70710678f, splat(4.0f)), splat(-4.0f));
  const vf t = u * u;
  vf p = splat(1.9208764e-08f);
  p = p * t - 1.9925794e-06f;
  p = p * t + 1.5607590e-04f;
  p = p * t + 4.3147751e-03f;
  p = p * t + 5.2501515e-02f;
  p = p * t + 2.1444833e-01f;
  p = p * t + 1.1283786e+00f;
  vf q = splat(1.1033633e-03f);
  q = q * t + 1.5594870e-02f;
  q = q * t + 1.2100912e-01f;
  q = q * t + 5.2337742e-01f;
  q = q * t + 1.0f;
  return x * 0.5f * (u * p / q + 1.0f);
}

// Mish(x) = x tanh(log(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2); from 20 on that is x.
inline vf mish(vf x) {
  const vf e = exp(min(x, splat(20.0f)));  // NaN: x itself is a factor
  const vf n = e * (e + 2.0f);
  return x * (n / (n + 2.0f));
}

// out[row] = normalised x[row] * gain + shift over d columns.
inline void layer_norm(const float* x, float* out, int rows, int d, const float* gain, const float* shift, float eps) {
  for (int row = 0; row < rows; ++row, x += d, out += d) {
    vf total{}, squares{};
    for (int j = 0; j < d; j += kWidth) total += load(x + j);
    const float mean = sum(total) / d;
    for (int j = 0; j < d; j += kWidth) {
      const vf c = load(x + j) - mean;
      squares += c * c;
    }
    const float scale = 1.0f / std::sqrt(sum(squares) / d + eps);
    for (int j = 0; j < d; j += kWidth) store(out + j, (load(x + j) - mean) * scale * load(gain + j) + load(shift + j));
  }
}

}  // namespace
}  // namespace bac
