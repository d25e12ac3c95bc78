// The vision encoder as one thread of a team runs it: images in, features out.
//
// Activations lie as [frame][pixel][channel]. A convolution gathers the patches of some rows (pixels of its output) and
// multiplies them by its weights, so that it runs on the same products as the denoiser. With fewer multiplications its rows are
// tiles of pixels (winograd.hpp), or it leaves out the border (taps.hpp). A row's sum runs in one order whatever the rows beside
// it: a frame's features do not depend on the frames it is encoded with, nor on the number of threads.
#pragma once
#include <algorithm>
#include <limits>

#include "maps.hpp"
#include "product.hpp"
#include "taps.hpp"
#include "team.hpp"
#include "winograd.hpp"

namespace bac {
namespace {

constexpr int kFramesTogether = 8;        // that one pass takes, so that each weight it reads serves several
constexpr size_t kPatchFloats = 112 << 10;  // of gathered patches that stay in a second-level cache beside the weights

// Calls see(convolution, shape before it) for each convolution of a camera, and gives the shape of the feature map.
template <class See>
inline Shape walk(const Camera& camera, See&& see) {
  Shape shape{camera.crop_height, camera.crop_width};
  see(camera.stem, shape);
  shape = window(after(camera.stem, shape), camera.pool, camera.pool_stride, camera.pool_padding);
  for (int i = 0; i < camera.blocks; ++i) {
    const Residual& block = camera.block[i];
    see(block.first, shape);
    if (block.shortcut.weight.data) see(block.shortcut, shape);
    shape = after(block.first, shape);
    see(block.second, shape);
  }
  return shape;
}

inline int pitch_of(const Conv& conv) { return round_up(conv.weight.k); }

// Rows of a convolution's product for one frame: pixels of its output, or tiles of them.
inline int rows_of(const Conv& conv, Shape out) { return conv.tile ? tiles(conv, out) : out.pixels(); }

// Floats of memory that a row needs, how many rows a thread takes at once, and the memory that it needs for them.
inline size_t floats_of_row(const Conv& conv) {
  return conv.tile ? floats_of_tile(conv) : has_taps(conv) ? floats_of_taps(conv) : size_t(pitch_of(conv));
}
inline int rows_at_once(const Conv& conv) { return std::max(int(kPatchFloats / floats_of_row(conv)), kTileRows); }
inline size_t floats_of_rows(const Conv& conv, int rows) {
  return conv.tile ? floats_of_tiles(conv, rows) : rows * floats_of_row(conv);
}

// Whether a team shares the rows of a convolution, rather than its columns: where that leaves each thread rows for two tiles, or
// some where columns would leave it less than two panels. `rows` are those of a call's largest pass, so that all its passes have
// the memory that was taken for that one.
inline bool by_rows(const Conv& conv, int rows, int team) {
  return rows >= 2 * kTileRows * team || (conv.weight.n / kLanes < 2 * team && rows >= 4 * team);
}

// Buffers of some frames that one team works on.
struct Sight {
  Sight(const Encoder& e, int frames, Parts& parts) {
    size_t image = 0, map = 0;
    bool narrowed = false;
    for (int i = 0; i < e.cameras; ++i) {
      const Camera& camera = e.camera[i];
      image = std::max(image, size_t(camera.crop_height) * camera.crop_width * camera.channels);
      walk(camera, [&](const Conv& conv, Shape in) {
        map = std::max(map, size_t(after(conv, in).pixels()) * conv.weight.n);
        narrowed |= conv.weight.format == kBfloat;
      });
    }
    auto take = [&](size_t floats) {
      float* wide = parts.take(floats);
      return Map{wide, narrowed ? reinterpret_cast<uint16_t*>(parts.take((floats + 1) / 2)) : nullptr};
    };
    pixels = take(frames * image);
    for (Map& buffer : maps) buffer = take(frames * map);
  }
  Map pixels, maps[4];
};

class Observer {
 public:
  // most: frames of the call's largest pass.
  Observer(const Encoder& e, const Frames& call, int first, int frames, int most, const Sight& sight, Barrier& barrier, int id, int team, Parts& parts)
      : e(e), call(call), first(first), frames(frames), most(most), sight(sight), barrier(barrier), id(id), team(team) {
    size_t floats = 0, row = 0;
    for (int i = 0; i < e.cameras; ++i) {
      const Shape map = walk(e.camera[i], [&](const Conv& conv, Shape in) {
        const int rows = most * rows_of(conv, after(conv, in));
        const int own = by_rows(conv, rows, team) ? std::min((rows + team - 1) / team, rows_at_once(conv)) : rows;
        floats = std::max(floats, floats_of_rows(conv, own));
      });
      const Camera& camera = e.camera[i];
      row = std::max(row, size_t(map.pixels()) * camera.keypoint.n + camera.linear.k + camera.linear.n);
    }
    patches = parts.take(floats);
    scratch = parts.take(row);
  }

  // Allocates nothing and throws nothing: it runs in threads.
  void run() noexcept {
    for (int i = 0; i < e.cameras; ++i) look(e.camera[i], call.image[i]);
  }

 private:
  int share(int n, int part) const { return int(int64_t(n) * part / team); }

  void look(const Camera& camera, const float* image) {
    crop(camera, image);
    Shape shape{camera.crop_height, camera.crop_width};
    Map x = sight.maps[0], y = sight.maps[1], z = sight.maps[2], shortcut = sight.maps[3];
    shape = convolve(camera.stem, shape, sight.pixels, y);
    normalise(camera.stem, shape.pixels(), {y.wide, nullptr}, nullptr, true);  // nothing multiplies it before the pooling
    shape = pool(camera, shape, y, x);
    for (int i = 0; i < camera.blocks; ++i) {
      const Residual& block = camera.block[i];
      const Shape in = shape;
      const float* added = x.wide;
      if (block.shortcut.weight.data) {
        const Shape out = convolve(block.shortcut, in, x, shortcut);
        normalise(block.shortcut, out.pixels(), shortcut, nullptr, false);
        added = shortcut.wide;
      }
      shape = convolve(block.first, in, x, y);
      normalise(block.first, shape.pixels(), y, nullptr, true);
      convolve(block.second, shape, y, z);
      normalise(block.second, shape.pixels(), z, added, true);
      std::swap(x, z);
    }
    for (int frame = share(frames, id); frame < share(frames, id + 1); ++frame) features(camera, shape.pixels(), x.wide, frame);
    barrier.wait();
  }

  // The part that is looked at, channels last.
  void crop(const Camera& camera, const float* image) {
    const size_t plane = size_t(camera.height) * camera.width, numbers = size_t(camera.crop_width) * camera.channels;
    const int lines = frames * camera.crop_height;
    for (int line = share(lines, id); line < share(lines, id + 1); ++line) {
      const int frame = line / camera.crop_height, y = line % camera.crop_height;
      const float* from = image + size_t(first + frame) * camera.channels * plane + size_t(camera.top + y) * camera.width + camera.left;
      float* const to = sight.pixels.wide + line * numbers;
      auto interleave = [&](auto channels) {
        for (int x = 0; x < camera.crop_width; ++x)
          for (int channel = 0; channel < channels; ++channel) to[x * channels + channel] = from[channel * plane + x];
      };
      if (camera.channels == 3) interleave(std::integral_constant<int, 3>{});
      else interleave(camera.channels);
      if (sight.pixels.narrow) narrow(to, sight.pixels.narrow + line * numbers, numbers);
    }
    barrier.wait();
  }

  // Patches of output pixels [begin, begin + count) of all frames, a row of `pitch` numbers each.
  void gather(const Conv& conv, Shape in, Shape out, const Map& x, int begin, int count) {
    const bool narrowed = conv.weight.format == kBfloat;
    const int size = conv.size, stride = conv.stride, padding = conv.padding, n = out.pixels();
    const size_t unit = narrowed ? sizeof(uint16_t) : sizeof(float), pixel_size = conv.channels * unit;
    const size_t line = size * pixel_size, row = pitch_of(conv) * unit, in_line = in.width * pixel_size;
    const char* const all = narrowed ? reinterpret_cast<const char*>(x.narrow) : reinterpret_cast<const char*>(x.wide);
    char* to = reinterpret_cast<char*>(patches);
    for (int i = begin; i < begin + count; ++i, to += row) {
      const int top = i % n / out.width * stride - padding, left = i % n % out.width * stride - padding;
      const char* const frame = all + size_t(i / n) * in.pixels() * pixel_size;
      std::memset(to + size * line, 0, row - size * line);
      if (top >= 0 && top + size <= in.height && left >= 0 && left + size <= in.width) {
        const char* const from = frame + top * in_line + left * pixel_size;
        for (int ky = 0; ky < size; ++ky) copy(to + ky * line, from + ky * in_line, line);
        continue;
      }
      const int first = std::max(-left, 0), last = std::min(size, in.width - left);
      for (int ky = 0; ky < size; ++ky) {
        const int y = top + ky;
        char* const part = to + ky * line;
        std::memset(part, 0, line);
        if (y >= 0 && y < in.height && first < last)
          std::memcpy(part + first * pixel_size, frame + y * in_line + (left + first) * pixel_size, (last - first) * pixel_size);
      }
    }
  }

  Shape convolve(const Conv& conv, Shape in, const Map& x, const Map& out) {
    const Shape shape = after(conv, in);
    const int rows = frames * rows_of(conv, shape), n = conv.weight.n, pitch = pitch_of(conv);
    const bool own_rows = by_rows(conv, most * rows_of(conv, shape), team);
    const bool taps = by_taps(conv, in, shape);
    const int worker = own_rows ? 0 : id, workers = own_rows ? 1 : team;
    const int begin = own_rows ? share(rows, id) : 0, end = own_rows ? share(rows, id + 1) : rows;
    const int together = own_rows ? rows_at_once(conv) : rows, chunks = (end - begin + together - 1) / together;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int from = begin + int(int64_t(end - begin) * chunk / chunks), to = begin + int(int64_t(end - begin) * (chunk + 1) / chunks);
      if (conv.tile) {
        convolve_tiles(conv, in, shape, x.wide, from, to - from, worker, workers, patches, out.wide);
      } else if (taps) {
        convolve_taps(conv, in, shape, x, from, to - from, worker, workers, patches, out.wide + size_t(from) * n);
      } else {
        gather(conv, in, shape, x, from, to - from);
        multiply(conv.weight, patches, pitch, to - from, worker, workers, out.wide + size_t(from) * n);
      }
    }
    barrier.wait();
    return shape;
  }

  // out[row][w.n] = a @ w for this worker's columns; rows of a are `pitch` numbers apart.
  static void multiply(const Matrix& w, const float* a, int pitch, int rows, int worker, int workers, float* out) {
    const int n = w.n;
    auto emit = [out, n](int row, int column, vf value) { store(out + size_t(row) * n + column, value); };
#if defined(BAC_BFLOAT)
    if (w.format == kBfloat)
      return packed_product<BfloatWeights>(reinterpret_cast<const uint32_t*>(a), pitch / 2, rows, w, worker, workers, emit);
#endif
    product(a, pitch, rows, w, worker, workers, emit);
  }

  // Normalises a convolution's output in place, then adds `added` and applies ReLU where wanted.
  void normalise(const Conv& conv, int pixels, const Map& x, const float* added, bool relu) {
    const Norm& norm = conv.norm;
    const int n = conv.weight.n, groups = norm.groups ? norm.groups : n / kLanes, width = n / groups;
    const vf least = splat(relu ? 0.0f : -std::numeric_limits<float>::infinity());
    for (int task = share(frames * groups, id); task < share(frames * groups, id + 1); ++task) {
      const int column = task % groups * width;
      const size_t at = size_t(task / groups) * pixels * n + column;
      float mean = 0, scale = 1;
      if (norm.groups) {
        const float count = float(pixels) * width;
        mean = over(x.wide + at, pixels, n, width, [](vf v) { return v; }) / count;
        scale = 1.0f / std::sqrt(over(x.wide + at, pixels, n, width, [mean](vf v) { return (v - mean) * (v - mean); }) / count + norm.eps);
      }
      for (int j = 0; j < width; j += kWidth) {
        const vf gain = load(norm.gain + column + j) * scale, shift = load(norm.shift + column + j);
        for (size_t p = at + j, end = p + size_t(pixels) * n; p < end; p += n) {
          vf v = (load(x.wide + p) - mean) * gain + shift;
          if (added) v += load(added + p);
          x.put(p, max(least, v));  // NaN stays NaN
        }
      }
    }
    barrier.wait();
  }

  // Sum of f(x) over `pixels` rows of `width` numbers, in four parts: a single one would wait for its own additions.
  template <class F>
  static float over(const float* x, int pixels, int n, int width, F&& f) {
    vf total[4] = {};
    for (int j = 0; j < width; j += kWidth) {
      int pixel = 0;
      for (; pixel + 4 <= pixels; pixel += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) total[i] += f(load(x + size_t(pixel + i) * n + j));
      for (; pixel < pixels; ++pixel) total[0] += f(load(x + size_t(pixel) * n + j));
    }
    return sum((total[0] + total[1]) + (total[2] + total[3]));
  }

  Shape pool(const Camera& camera, Shape in, const Map& x, const Map& out) {
    const Shape shape = window(in, camera.pool, camera.pool_stride, camera.pool_padding);
    const int n = camera.stem.weight.n, lines = frames * shape.height;
    for (int line = share(lines, id); line < share(lines, id + 1); ++line) {
      const float* from = x.wide + size_t(line / shape.height) * in.pixels() * n;
      const int top = line % shape.height * camera.pool_stride - camera.pool_padding;
      for (int column = 0; column < shape.width; ++column) {
        const int left = column * camera.pool_stride - camera.pool_padding;
        const size_t to = (size_t(line) * shape.width + column) * n;
        for (int j = 0; j < n; j += kWidth) {
          vf best = splat(-std::numeric_limits<float>::infinity());
          for (int y = std::max(top, 0); y < std::min(top + camera.pool, in.height); ++y)
            for (int i = std::max(left, 0); i < std::min(left + camera.pool, in.width); ++i)
              best = max(load(from + (size_t(y) * in.width + i) * n + j), best);
          out.put(to + j, best);
        }
      }
    }
    barrier.wait();
    return shape;
  }

  // Key points of one frame's feature map (the mean position under a softmax over its pixels), linear layer, ReLU.
  void features(const Camera& camera, int pixels, const float* x, int frame) {
    const int channels = camera.keypoint.k, n = camera.keypoint.n;
    float *scores = scratch, *points = scores + size_t(pixels) * n, *out = points + camera.linear.k;
    multiply(camera.keypoint, x + size_t(frame) * pixels * channels, channels, pixels, 0, 1, scores);
    for (int j = 0; j < n; j += kWidth) {
      vf top = splat(-std::numeric_limits<float>::infinity()), total{}, column{}, row{};
      for (int pixel = 0; pixel < pixels; ++pixel) {
        float* score = scores + size_t(pixel) * n + j;
        store(score, (load(score) + load(camera.keypoint.bias + j)) * camera.inverse_temperature);
        top = max(load(score), top);
      }
      for (int pixel = 0; pixel < pixels; ++pixel) {
        const vf weight = bac::exp(load(scores + size_t(pixel) * n + j) - top);
        total += weight, column += weight * camera.column[pixel], row += weight * camera.row[pixel];
      }
      column /= total, row /= total;
      for (int i = 0; i < kWidth && j + i < camera.keypoints; ++i) points[2 * (j + i)] = column[i], points[2 * (j + i) + 1] = row[i];
    }
    multiply(camera.linear, points, camera.linear.k, 1, 0, 1, out);
    float* to = call.out + size_t(first + frame) * e.width + camera.at;
    for (int i = 0; i < camera.features; ++i) to[i] = std::max(out[i] + camera.linear.bias[i], 0.0f);
  }

  const Encoder& e;
  const Frames& call;
  const int first, frames, most;
  const Sight sight;
  Barrier& barrier;
  const int id, team;
  float *patches, *scratch;
};

}  // namespace
}  // namespace bac
