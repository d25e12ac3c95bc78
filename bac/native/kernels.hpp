// Vector arithmetic and the matrix product of the native denoiser. Weights lie in panels of 16 columns, whatever the
// processor; vectors are as wide as its registers, as compilers keep wider ones in memory.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace bac {

constexpr int kLanes = 16;  // columns of a panel; sizes are rounded up to them

// Register tile: rows times panels. Its sums and one row of weights fit the registers.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kTileRows = 8, kTilePanels = 3;
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

#if defined(__F16C__)
constexpr bool kHalfWeights = true;
#else
constexpr bool kHalfWeights = false;
#endif

inline vf splat(float v) { return v - vf{}; }
inline vf load(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
inline void store(float* p, vf v) { *reinterpret_cast<vf_unaligned*>(p) = v; }
inline vf max(vf a, vf b) { return a > b ? a : b; }
inline vf min(vf a, vf b) { return a < b ? a : b; }

inline float sum(vf v) {
  float total = 0;
  for (int i = 0; i < kWidth; ++i) total += v[i];
  return total;
}

// Vectors of weights: float, or half precision widened on load (exact).
struct FloatWeights {
  static constexpr int kBytes = 4;
  static vf get(const char* p) { return load(reinterpret_cast<const float*>(p)); }
};
struct HalfWeights {
  static constexpr int kBytes = 2;
  static vf get(const char* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<vf>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
    return reinterpret_cast<vf>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    return vf{};  // never packed: see kHalfWeights
#endif
  }
};

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

// One register tile: R rows of a [., lda] times V panels of weights laid out with `stride` weights between rows of k.
// The sum over k runs in one order for every row, so a row's result does not depend on how rows are tiled or batched.
template <int R, int V, class W>
inline void tile(const float* a, int lda, const char* const* panel, int stride, int k, vf (&acc)[R][V * kParts]) {
  constexpr int N = V * kParts;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) acc[r][v] = vf{};
  const long step = static_cast<long>(stride) * W::kBytes;
  const char* p[V];
  for (int v = 0; v < V; ++v) p[v] = panel[v];
  for (int i = 0; i < k; ++i) {
    vf w[N];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) w[v * kParts + part] = W::get(p[v] + part * kWidth * W::kBytes);
      p[v] += step;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const float s = a[static_cast<long>(r) * lda + i];
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) acc[r][v] += w[v] * s;
    }
  }
}

// Calls f with an integral_constant equal to n, 1 <= n <= N.
template <int N, class F>
inline void with_constant(int n, F&& f) {
  if constexpr (N > 1) {
    if (n < N) return with_constant<N - 1>(n, f);
  }
  f(std::integral_constant<int, N>{});
}

// V panels of a product for `rows` rows; emit(row, column, value) takes each finished vector. Rows are split into
// tiles of nearly equal size, since a tile of few rows leaves the adders waiting.
template <int V, class W, class Emit>
inline void panel_product(const float* a, int lda, int rows, const char* const* panel, int stride, int k, int column, Emit&& emit) {
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  for (int i = 0; i < tiles; ++i) {
    const int row = int(int64_t(rows) * i / tiles), count = int(int64_t(rows) * (i + 1) / tiles) - row;
    with_constant<kTileRows>(count, [&](auto size) {
      constexpr int R = decltype(size)::value;
      vf acc[R][V * kParts];
      tile<R, V, W>(a + static_cast<long>(row) * lda, lda, panel, stride, k, acc);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V * kParts; ++v) emit(row + r, column + v * kWidth, acc[r][v]);
    });
  }
}

// Panels to take next when `left` remain: full tiles, and 2 + 2 rather than 3 + 1 at the end.
inline int next_panels(int left) { return left == 4 && kTilePanels == 3 ? 2 : left < kTilePanels ? left : kTilePanels; }

// A weight matrix [k, n] packed as n / 16 panels of [k][16], with a bias of n values.
struct Matrix {
  const char* data;
  const float* bias;
  int32_t n, k, half;
};

// emit(row, column, a @ w + bias) for the panels this worker owns: panel % workers == worker.
template <class W, class Emit>
inline void product(const float* a, int lda, int rows, const Matrix& w, int worker, int workers, Emit&& emit) {
  const long panel_bytes = static_cast<long>(w.k) * kLanes * W::kBytes;
  const int panels = w.n / kLanes;
  // contiguous shares keep each worker's weights a sequential stream
  const int first = panels * worker / workers, last = panels * (worker + 1) / workers;
  auto with_bias = [&](int row, int column, vf value) { emit(row, column, value + load(w.bias + column)); };
  for (int p = first; p < last;) {
    with_constant<kTilePanels>(next_panels(last - p), [&](auto size) {
      constexpr int V = decltype(size)::value;
      const char* panel[V];
      for (int v = 0; v < V; ++v) panel[v] = w.data + (p + v) * panel_bytes;
      panel_product<V, W>(a, lda, rows, panel, kLanes, w.k, p * kLanes, with_bias);
      p += V;
    });
  }
}

template <class Emit>
inline void product(const float* a, int lda, int rows, const Matrix& w, int worker, int workers, Emit&& emit) {
  if (w.half) product<HalfWeights>(a, lda, rows, w, worker, workers, emit);
  else product<FloatWeights>(a, lda, rows, w, worker, workers, emit);
}

// emit(row, column, a @ b) for an ordinary row-major b [k, n], n a multiple of 16.
template <class Emit>
inline void small_product(const float* a, int lda, int rows, const float* b, int ldb, int k, int n, Emit&& emit) {
  for (int column = 0; column < n;) {
    with_constant<kTilePanels>(next_panels((n - column) / kLanes), [&](auto size) {
      constexpr int V = decltype(size)::value;
      const char* panel[V];
      for (int v = 0; v < V; ++v) panel[v] = reinterpret_cast<const char*>(b + column + v * kLanes);
      panel_product<V, FloatWeights>(a, lda, rows, panel, ldb, k, column, emit);
      column += V * kLanes;
    });
  }
}

}  // namespace bac
