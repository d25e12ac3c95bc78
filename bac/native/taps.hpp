// Convolutions with 3x3 kernels on small maps, tap by tap. Near the border of a map some taps of the kernel see only the padding;
// on a map of 3 x 3 pixels 32 of 81 do. Each tap multiplies the pixels that it sees, and the sums gather in the output.
#pragma once
#include "maps.hpp"
#include "product.hpp"
#include "team.hpp"

namespace bac {
namespace {

constexpr int kTaps = 9;

// Pairs of an output and a tap that sees its input, along one side.
inline int seen(int in, int out, const Conv& conv) {
  int count = 0;
  for (int i = 0; i < out; ++i)
    for (int tap = 0, at = i * conv.stride - conv.padding; tap < conv.size; ++tap, ++at) count += at >= 0 && at < in;
  return count;
}

inline bool has_taps(const Conv& conv) { return !conv.tile && conv.size * conv.size == kTaps && conv.channels % kLanes == 0; }

// Whether enough taps see nothing: a fifth, since each one costs a pass over its sums.
inline bool by_taps(const Conv& conv, Shape in, Shape out) {
  return has_taps(conv) && 5LL * seen(in.height, out.height, conv) * seen(in.width, out.width, conv) <= 4LL * kTaps * out.pixels();
}

// Floats that `convolve_taps` needs for a pixel: its inputs, and which output each belongs to.
inline size_t floats_of_taps(const Conv& conv) { return size_t(kTaps) * (conv.channels + 1); }

// This worker's columns of output pixels [begin, begin + count) of all frames; `to` leads to the first of these.
template <class W>
inline void convolve_taps_as(const Conv& conv, Shape in, Shape out, const typename W::Input* x, int begin, int count, int worker, int workers, float* memory, float* to) {
  const Matrix& w = conv.weight;
  const int depth = conv.channels / W::kDepth, pixels = out.pixels();
  auto* const values = reinterpret_cast<typename W::Input*>(memory);
  auto* const output = reinterpret_cast<int32_t*>(memory + size_t(kTaps) * count * conv.channels);
  int first[kTaps + 1] = {};
  for (int tap = 0, row = 0; tap < kTaps; ++tap, first[tap] = row)
    for (int i = 0; i < count; ++i) {
      const int frame = (begin + i) / pixels, pixel = (begin + i) % pixels;
      const int top = pixel / out.width * conv.stride - conv.padding + tap / conv.size;
      const int left = pixel % out.width * conv.stride - conv.padding + tap % conv.size;
      if (top < 0 || top >= in.height || left < 0 || left >= in.width) continue;
      std::memcpy(values + size_t(row) * depth, x + (size_t(frame) * in.pixels() + size_t(top) * in.width + left) * depth, depth * sizeof(*x));
      output[row++] = i;
    }
  const long stride = kLanes * W::kBytes, tap_step = depth * stride, panel_step = kTaps * tap_step;
  const int all = w.n / kLanes, last = all * (worker + 1) / workers, most = tile_rows<W>();
  alignas(64) float sums[kMostRows * kTilePanels * kLanes];
  for (int panel = all * worker / workers; panel < last;) {
    const int panels = next_panels(last - panel);
    float* const column = to + panel * kLanes;
    for (int i = 0; i < count; ++i) std::memset(column + size_t(i) * w.n, 0, panels * kLanes * sizeof(float));
    for (int tap = 0; tap < kTaps; ++tap) {
      const long next = tap + 1 < kTaps ? tap_step : last - panel > panels ? panels * panel_step - tap * tap_step : 0;
      const int rows = first[tap + 1] - first[tap], groups = (rows + most - 1) / most;
      for (int i = 0; i < groups; ++i) {
        const int row = first[tap] + int(int64_t(rows) * i / groups), end = first[tap] + int(int64_t(rows) * (i + 1) / groups);
        multiply<W>(end - row, panels, values + size_t(row) * depth, depth, w.data + panel * panel_step + tap * tap_step, panel_step, stride, next, depth, sums);
        const float* sum = sums;
        for (int r = row; r < end; ++r)
          for (int j = 0; j < panels * kLanes; j += kWidth, sum += kWidth) {
            float* const total = column + size_t(output[r]) * w.n + j;
            store(total, load(total) + load(sum));
          }
      }
    }
    panel += panels;
  }
}

inline void convolve_taps(const Conv& conv, Shape in, Shape out, const Map& x, int begin, int count, int worker, int workers, float* memory, float* to) {
#if defined(BAC_BFLOAT)
  if (conv.weight.format == kBfloat)
    return convolve_taps_as<BfloatWeights>(conv, in, out, reinterpret_cast<const uint32_t*>(x.narrow), begin, count, worker, workers, memory, to);
#endif
  if (conv.weight.format == kHalf) convolve_taps_as<HalfWeights>(conv, in, out, x.wide, begin, count, worker, workers, memory, to);
  else convolve_taps_as<FloatWeights>(conv, in, out, x.wide, begin, count, worker, workers, memory, to);
}

}  // namespace
}  // namespace bac
