// Convolutions with 3x3 kernels at stride 1 in fewer multiplications: minimal filtering F(M x M, 3 x 3) after Winograd (Lavin
// and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4).
//
// A tile of M x M outputs depends on T x T inputs, T = M + 2. Both are polynomials whose product is known from its values at T
// points, infinity among them: an input tile becomes its values there (`enter`), each of the T x T values is multiplied by the
// weights' values there (packed so: bac/native/winograd.py has the same points), and the sums over channels become outputs
// (`leave`). One product runs over all tiles of all frames. A tile's results do not depend on the tiles beside it.
#pragma once
#include <algorithm>

#include "maps.hpp"
#include "product.hpp"
#include "team.hpp"

namespace bac {
namespace {

// One line of a tile, in place, its elements S apart: T inputs to T values, and T sums to M outputs.
template <int M>
struct Line;

// Points 0, 1, -1 and infinity.
template <>
struct Line<2> {
  template <int S>
  static void enter(vf* d) {
    const vf d0 = d[0], d1 = d[S], d2 = d[2 * S], d3 = d[3 * S];
    d[0] = d2 - d0, d[S] = d1 + d2, d[2 * S] = d2 - d1, d[3 * S] = d3 - d1;
  }
  template <int S>
  static void leave(vf* m) {
    const vf m0 = m[0], m1 = m[S], m2 = m[2 * S], m3 = m[3 * S];
    m[0] = m0 + m1 + m2, m[S] = m1 - m2 + m3;
  }
};

// Points 0, 3/4, -3/4, 3/2, -3/2 and infinity: half the rounding error of 0, 1, -1, 2, -2, and as exact in binary.
template <>
struct Line<4> {
  static constexpr float a = 0.75f, b = 1.5f;
  template <int S>
  static void enter(vf* d) {
    const vf d0 = d[0], d1 = d[S], d2 = d[2 * S], d3 = d[3 * S], d4 = d[4 * S], d5 = d[5 * S];
    const vf even_a = d4 - (b * b) * d2, odd_a = (d3 - (b * b) * d1) * a, even_b = d4 - (a * a) * d2, odd_b = (d3 - (a * a) * d1) * b;
    d[0] = (a * a * b * b) * d0 - (a * a + b * b) * d2 + d4;
    d[S] = even_a + odd_a, d[2 * S] = even_a - odd_a, d[3 * S] = even_b + odd_b, d[4 * S] = even_b - odd_b;
    d[5 * S] = (a * a * b * b) * d1 - (a * a + b * b) * d3 + d5;
  }
  template <int S>
  static void leave(vf* m) {
    const vf m0 = m[0], m5 = m[5 * S];
    const vf even_a = m[S] + m[2 * S], odd_a = m[S] - m[2 * S], even_b = m[3 * S] + m[4 * S], odd_b = m[3 * S] - m[4 * S];
    m[0] = m0 + even_a + even_b, m[S] = a * odd_a + b * odd_b;
    m[2 * S] = (a * a) * even_a + (b * b) * even_b, m[3 * S] = (a * a * a) * odd_a + (b * b * b) * odd_b + m5;
  }
};

inline int tiles_across(const Conv& conv, Shape out) { return (out.width + conv.tile - 1) / conv.tile; }
inline int tiles_down(const Conv& conv, Shape out) { return (out.height + conv.tile - 1) / conv.tile; }
inline int tiles(const Conv& conv, Shape out) { return tiles_across(conv, out) * tiles_down(conv, out); }
inline int points(const Conv& conv) { return (conv.tile + 2) * (conv.tile + 2); }

// Numbers that a tile has in memory on its way: its values at all points, and the sums of the columns that are worked on.
inline size_t floats_of_tile(const Conv& conv) { return size_t(points(conv)) * (conv.channels + kTilePanels * kLanes); }

// Floats that `convolve_tiles` needs for `count` tiles: beside those of each tile, a gap behind each point's, since planes that
// lie a power of two apart would share few lines of a cache; and a pixel beyond the border.
inline size_t floats_of_tiles(const Conv& conv, int count) {
  return count * floats_of_tile(conv) + 2 * size_t(points(conv)) * kLanes + size_t(conv.channels);
}

// Values of tiles [begin, begin + count) of all frames, [point][tile][channel] with `plane` numbers from point to point.
template <int M, class W>
inline void enter_tiles(const Conv& conv, Shape in, Shape out, const float* x, int begin, int count, typename W::Input* to, size_t plane, const float* nothing) {
  constexpr int T = M + 2;
  const int across = tiles_across(conv, out), all = tiles(conv, out), channels = conv.channels;
  for (int i = 0; i < count; ++i) {
    const int frame = (begin + i) / all, tile = (begin + i) % all;
    const int top = tile / across * M - conv.padding, left = tile % across * M - conv.padding;
    const float* from = x + size_t(frame) * in.pixels() * channels;
    const float* pixel[T * T];
    for (int p = 0; p < T * T; ++p) {
      const int row = top + p / T, column = left + p % T;
      const bool inside = row >= 0 && row < in.height && column >= 0 && column < in.width;
      pixel[p] = inside ? from + (size_t(row) * in.width + column) * channels : nothing;
    }
    for (int j = 0; j < channels; j += kWidth) {
      vf d[T * T];
#pragma GCC unroll 36
      for (int p = 0; p < T * T; ++p) d[p] = load(pixel[p] + j);
#pragma GCC unroll 6
      for (int p = 0; p < T; ++p) Line<M>::template enter<T>(d + p);
#pragma GCC unroll 6
      for (int p = 0; p < T; ++p) Line<M>::template enter<1>(d + p * T);
#pragma GCC unroll 36
      for (int p = 0; p < T * T; ++p) {
        const size_t at = (p * plane + size_t(i) * channels + j) / W::kDepth;
#if defined(BAC_BFLOAT)
        if constexpr (std::is_same_v<W, BfloatWeights>) store_narrow(reinterpret_cast<uint16_t*>(to + at), d[p]);
        else
#endif
          store(reinterpret_cast<float*>(to) + at, d[p]);
      }
    }
  }
}

// Outputs [pixel][n] of tiles [begin, begin + count) from their sums [point][tile][width]; `to` leads to the first of `width`
// columns.
template <int M>
inline void leave_tiles(const Conv& conv, Shape out, const float* sums, size_t plane, int width, int begin, int count, float* to) {
  constexpr int T = M + 2;
  const int across = tiles_across(conv, out), all = tiles(conv, out), n = conv.weight.n;
  for (int i = 0; i < count; ++i) {
    const int frame = (begin + i) / all, tile = (begin + i) % all;
    const int top = tile / across * M, left = tile % across * M, rows = std::min(M, out.height - top), columns = std::min(M, out.width - left);
    float* first = to + (size_t(frame) * out.pixels() + size_t(top) * out.width + left) * n;
    for (int j = 0; j < width; j += kWidth) {
      vf m[T * T];
#pragma GCC unroll 36
      for (int p = 0; p < T * T; ++p) m[p] = load(sums + p * plane + size_t(i) * width + j);
#pragma GCC unroll 6
      for (int p = 0; p < T; ++p) Line<M>::template leave<T>(m + p);
#pragma GCC unroll 4
      for (int p = 0; p < M; ++p) Line<M>::template leave<1>(m + p * T);
#pragma GCC unroll 4
      for (int row = 0; row < M; ++row)
#pragma GCC unroll 4
        for (int column = 0; column < M; ++column)
          if (row < rows && column < columns) store(first + (size_t(row) * out.width + column) * n + j, m[row * T + column]);
    }
  }
}

// This worker's columns of tiles [begin, begin + count) of all frames; `memory` has room for `floats_of_tiles`.
template <int M, class W>
inline void convolve_tiles_as(const Conv& conv, Shape in, Shape out, const float* x, int begin, int count, int worker, int workers, float* memory, float* to) {
  constexpr int T = M + 2;
  const Matrix& w = conv.weight;
  const int depth = conv.channels / W::kDepth, groups = (count + tile_rows<W>() - 1) / tile_rows<W>();
  const size_t in_plane = size_t(count) * conv.channels + kLanes, out_plane = size_t(count) * kTilePanels * kLanes + kLanes;
  auto* values = reinterpret_cast<typename W::Input*>(memory);
  float *sums = memory + T * T * in_plane, *nothing = sums + T * T * out_plane;
  std::memset(nothing, 0, conv.channels * sizeof(float));
  enter_tiles<M, W>(conv, in, out, x, begin, count, values, in_plane, nothing);
  const long stride = kLanes * W::kBytes, point_step = depth * stride, panel_step = T * T * point_step;
  const int all = w.n / kLanes, last = all * (worker + 1) / workers;
  for (int panel = all * worker / workers; panel < last;) {
    const int panels = next_panels(last - panel), width = panels * kLanes;
    for (int p = 0; p < T * T; ++p) {
      const long next = p + 1 < T * T ? point_step : last - panel > panels ? panels * panel_step - p * point_step : 0;
      for (int i = 0; i < groups; ++i) {
        const int row = int(int64_t(count) * i / groups), rows = int(int64_t(count) * (i + 1) / groups) - row;
        multiply<W>(rows, panels, values + p * in_plane / W::kDepth + size_t(row) * depth, depth, w.data + panel * panel_step + p * point_step, panel_step,
                    stride, next, depth, sums + p * out_plane + size_t(row) * width);
      }
    }
    leave_tiles<M>(conv, out, sums, out_plane, width, begin, count, to + panel * kLanes);
    panel += panels;
  }
}

template <class W>
inline void convolve_tiles_in(const Conv& conv, Shape in, Shape out, const float* x, int begin, int count, int worker, int workers, float* memory, float* to) {
  if (conv.tile == 2) convolve_tiles_as<2, W>(conv, in, out, x, begin, count, worker, workers, memory, to);
  else convolve_tiles_as<4, W>(conv, in, out, x, begin, count, worker, workers, memory, to);
}

inline void convolve_tiles(const Conv& conv, Shape in, Shape out, const float* x, int begin, int count, int worker, int workers, float* memory, float* to) {
#if defined(BAC_BFLOAT)
  if (conv.weight.format == kBfloat) return convolve_tiles_in<BfloatWeights>(conv, in, out, x, begin, count, worker, workers, memory, to);
#endif
  if (conv.weight.format == kHalf) convolve_tiles_in<HalfWeights>(conv, in, out, x, begin, count, worker, workers, memory, to);
  else convolve_tiles_in<FloatWeights>(conv, in, out, x, begin, count, worker, workers, memory, to);
}

}  // namespace
}  // namespace bac
