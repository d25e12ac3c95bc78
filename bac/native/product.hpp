// The matrix product of the native denoiser. Weights lie in panels of 16 columns, whatever the processor.
#pragma once
#include <type_traits>
#include <utility>

#include "amx.hpp"

namespace bac {
namespace {

// One register tile: R rows of a [., lda] times V panels, `panel_step` bytes apart, with `stride` bytes between vectors of
// weights; depth of them. Meanwhile it fetches what lies `ahead` bytes on: a panel is too short for the processor to notice by
// itself that the next one follows. Writes out[R][V * 16]. The sum runs in one order for every row, so a row's result does not
// depend on how rows are tiled or batched.
template <class W, int R, int V>
[[gnu::always_inline]] inline void multiply_tile(const typename W::Input* a, long lda, const char* p, long panel_step, long stride, long ahead, int depth, float* out) {
  constexpr int N = V * kParts;
  typename W::Sum acc[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) acc[r][v] = typename W::Sum{};
  for (int i = 0; i < depth; ++i, ++a, p += stride) {
    typename W::Weights w[N];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      __builtin_prefetch(p + v * panel_step + ahead, 0, 3);
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) w[v * kParts + part] = W::get(p + v * panel_step + part * kWidth * W::kBytes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto x = a[r * lda];
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) acc[r][v] = W::add(acc[r][v], w[v], x);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) store(out + (r * N + v) * kWidth, W::value(acc[r][v]));
}

// Not inlined: all products share it.
template <class W, int R, int V>
[[gnu::noinline]] void tile(const typename W::Input* a, long lda, const char* p, long panel_step, long stride, long ahead, int depth, float* out) {
  multiply_tile<W, R, V>(a, lda, p, panel_step, stride, ahead, depth, out);
}
#if defined(BAC_BYTES)
template <int R, int V>
[[gnu::noinline, BAC_BYTES]] void byte_tile(const uint32_t* a, long lda, const char* p, long panel_step, long stride, long ahead, int depth, float* out) {
  multiply_tile<ByteWeights, R, V>(a, lda, p, panel_step, stride, ahead, depth, out);
}
#endif

template <class W>
using Tile = void (*)(const typename W::Input*, long, const char*, long, long, long, int, float*);

template <class W, int... I>
constexpr Tile<W> pick(int index, std::integer_sequence<int, I...>) {
#if defined(BAC_BYTES)
  if constexpr (std::is_same_v<W, ByteWeights>) {
    constexpr Tile<W> all[] = {byte_tile<I / kTilePanels + 1, I % kTilePanels + 1>...};
    return all[index];
  } else
#endif
  {
    constexpr Tile<W> all[] = {tile<W, I / kTilePanels + 1, I % kTilePanels + 1>...};
    return all[index];
  }
}

template <class W>
inline Tile<W> tile_of(int rows, int panels) {
  return pick<W>((rows - 1) * kTilePanels + panels - 1, std::make_integer_sequence<int, kTileRows * kTilePanels>{});
}

// Whether products of a format run on a unit of their own here.
template <class W>
inline bool on_unit() {
#if defined(BAC_AMX)
  return W::kDepth > 1 && unit_on;
#else
  return false;
#endif
}

constexpr int kMostRows = kTileRows > kUnitRows ? kTileRows : kUnitRows, kMostPanels = kTilePanels > kUnitPanels ? kTilePanels : kUnitPanels;

// How many rows a tile takes at most.
template <class W>
inline int tile_rows() {
  return on_unit<W>() ? kUnitRows : kTileRows;
}

// A tile as `multiply_tile` describes it, on the unit if this thread uses it.
template <class W>
inline void multiply(int rows, int panels, const typename W::Input* a, long lda, const char* p, long panel_step, long stride, long ahead, int depth, float* out) {
#if defined(BAC_AMX)
  if constexpr (W::kDepth > 1)
    if (unit_on) return unit_tile<W>(a, lda, rows, p, panel_step, panels, depth, out);
#endif
  tile_of<W>(rows, panels)(a, lda, p, panel_step, stride, ahead, depth, out);
}

// Panels to take next when `left` remain: full tiles, and 2 + 2 rather than 3 + 1 at the end.
inline int next_panels(int left, int most = kTilePanels) { return left == 4 && most == 3 ? 2 : left < most ? left : most; }

// Panels [first, last) of a product for `rows` rows; emit(row, column, value) takes each finished vector. Rows are split
// into tiles of nearly equal size, since a tile of few rows leaves the adders waiting.
template <class W, class Emit>
inline void product(const typename W::Input* a, long lda, int rows, const char* data, long panel_step, long stride, int depth,
                    int first, int last, Emit&& emit) {
  const int most_rows = tile_rows<W>(), most_panels = on_unit<W>() ? kUnitPanels : kTilePanels;
  alignas(64) float out[kMostRows * kMostPanels * kLanes];
  const int tiles = (rows + most_rows - 1) / most_rows;
  for (int panel = first; panel < last;) {
    const int panels = next_panels(last - panel, most_panels);
    for (int i = 0; i < tiles; ++i) {
      const int row = int(int64_t(rows) * i / tiles), count = int(int64_t(rows) * (i + 1) / tiles) - row;
      const char* weights = data + panel * panel_step;
      multiply<W>(count, panels, a + row * lda, lda, weights, panel_step, stride, last - panel > panels ? panels * panel_step : 0, depth, out);
      const float* value = out;
      for (int r = 0; r < count; ++r)
        for (int v = 0; v < panels * kParts; ++v, value += kWidth) emit(row + r, panel * kLanes + v * kWidth, load(value));
    }
    panel += panels;
  }
}

// emit(row, column, a @ w) for a packed matrix and this worker's panels: contiguous shares keep each worker's weights a
// sequential stream.
template <class W, class Emit>
inline void packed_product(const typename W::Input* a, long lda, int rows, const Matrix& w, int worker, int workers, Emit&& emit) {
  const int panels = w.n / kLanes, depth = w.k / W::kDepth;
  const long stride = kLanes * W::kBytes;
  product<W>(a, lda, rows, w.data, depth * stride, stride, depth, panels * worker / workers, panels * (worker + 1) / workers, emit);
}

// emit(row, column, a @ w) for activations whose rows are lda apart, and weights in float or half precision.
template <class Emit>
inline void product(const float* a, long lda, int rows, const Matrix& w, int worker, int workers, Emit&& emit) {
  if (w.format == kHalf) packed_product<HalfWeights>(a, lda, rows, w, worker, workers, emit);
  else packed_product<FloatWeights>(a, lda, rows, w, worker, workers, emit);
}

// emit(row, column, a @ w + bias) for activations a [rows][w.k]; `narrow` has room for them in another format.
template <class Emit>
inline void product(const float* a, int rows, const Matrix& w, uint32_t* narrow, int worker, int workers, Emit&& emit) {
  auto with_bias = [&](int row, int column, vf value) { emit(row, column, value + load(w.bias + column)); };
#if defined(BAC_BFLOAT)
  if (w.format == kBfloat) {
    narrow_bfloat(a, narrow, size_t(rows) * w.k);
    return packed_product<BfloatWeights>(narrow, w.k / 2, rows, w, worker, workers, with_bias);
  }
#endif
#if defined(BAC_BYTES)
  if (w.format == kByte) {
    auto* ranges = reinterpret_cast<ByteWeights::Range*>(narrow + size_t(rows) * w.k / 4);
    for (int row = 0; row < rows; ++row) ranges[row] = ByteWeights::narrow(a + size_t(row) * w.k, narrow + size_t(row) * w.k / 4, w.k);
    return packed_product<ByteWeights>(narrow, w.k / 4, rows, w, worker, workers, [&](int row, int column, vf value) {
      const vf shift = load(w.sums + column) * ranges[row].low + load(w.bias + column);
      emit(row, column, value * (load(w.scale + column) * ranges[row].step) + shift);
    });
  }
#endif
  (void)narrow;
  product(a, w.k, rows, w, worker, workers, with_bias);
}

// emit(row, column, a @ b) for an ordinary row-major b [k, n], n a multiple of 16.
template <class Emit>
inline void small_product(const float* a, int lda, int rows, const float* b, int ldb, int k, int n, Emit&& emit) {
  product<FloatWeights>(a, lda, rows, reinterpret_cast<const char*>(b), kLanes * 4, 4L * ldb, k, 0, n / kLanes, emit);
}

}  // namespace
}  // namespace bac
