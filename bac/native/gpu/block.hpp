// One thread block: its shared memory, its share of the weights, and the arithmetic that all phases use.
#pragma once
#include "machine.hpp"

namespace bac {

// Shared memory beside the weights, in quads; bac/native/gpu/shares.py computes the same.
struct Scratch {
  BAC_FN explicit Scratch(const Sizes& s)
      : row(2 + 2 * (3 * s.layers + 1)), x(0), normed(x + s.width * kStride), wide(normed + s.width * kStride),
        memo(wide + most(3 * s.width * kStride, s.columns() * (key_row(s) + s.width) / 4)), cross_bias(memo + s.width * kGroups),
        column_bias(cross_bias + s.width / 4), scores(column_bias + up(s.columns())),
        part(scores + most(s.heads * kTile, s.columns()) * kGroups), bias(part + kPart), trajectory(bias + up(s.layers * rows(s))),
        last(trajectory + up(s.tokens * s.numbers)), noise(last + up(s.tokens * s.numbers)), plan(noise + up(s.tokens * s.numbers)),
        bytes(16 * (plan + 2 * row)) {}
  static BAC_FN int key_row(const Sizes& s) { return s.width + 4; }  // numbers from a key to the next: not all in one bank
  static BAC_FN int up(int floats) { return (floats + 3) / 4; }
  // Rows of a layer's four matrices that a thread block has at most.
  static BAC_FN int rows(const Sizes& s) {
    return (3 * s.width + s.blocks - 1) / s.blocks + 2 * ((s.width + s.blocks - 1) / s.blocks) + (4 * s.width + s.blocks - 1) / s.blocks;
  }
  int row;  // quads of a step's row of the plan
  int x, normed, wide, memo, cross_bias, column_bias, scores, part, bias, trajectory, last, noise, plan, bytes;
};

struct Block {
  BAC_FN Block(const Params& p, char* shared, int index, const Team& team) : p(p), s(p), at(s), team(team), index(index), shared(shared) {
    Quad* scratch = reinterpret_cast<Quad*>(shared + p.resident);
    const auto floats = [&](int quad) { return reinterpret_cast<float*>(scratch + quad); };
    x = scratch + at.x, normed = scratch + at.normed, wide = scratch + at.wide, memo = scratch + at.memo;
    scores = scratch + at.scores, part = scratch + at.part, plan = scratch + at.plan;
    cross_bias = floats(at.cross_bias), column_bias = floats(at.column_bias), bias = floats(at.bias);
    trajectory = floats(at.trajectory), last = floats(at.last), noise = floats(at.noise);
    keys = floats(at.wide), values = keys + s.columns() * Scratch::key_row(s);
  }
  BAC_FN int begin(int total) const { return share(total, index, s.blocks); }
  BAC_FN int own(int total) const { return share(total, index + 1, s.blocks) - begin(total); }
  BAC_FN int most_rows(int total) const { return (total + s.blocks - 1) / s.blocks; }  // of any thread block
  BAC_FN Step step(int number) const { return *reinterpret_cast<const Step*>(plan + number % 2 * at.row); }
  BAC_FN Segment segment(int number, int i) const { return *reinterpret_cast<const Segment*>(plan + number % 2 * at.row + 2 + 2 * i); }

  const Params& p;
  const Sizes s;
  const Scratch at;
  const Team team;
  const int index;
  char* const shared;
  Quad *x, *normed;          // [D][kStride] residual stream; its norm, or the heads' outputs
  Quad* wide;                // [3 D][kStride] queries, keys and values, behind `normed`
  float *keys, *values;      // [H (1 + S)][D + 4] and [H (1 + S)][D] of the folded cross-attention, in place of these
  Quad* memo;                // [G][D] a sum of stored outputs
  float *cross_bias, *column_bias;  // [D], [H (1 + S)] with the keys
  Quad* scores;              // [H][kTile][G] by queries, or [H (1 + S)][G] by columns
  Quad* part;                // [kPart] partial sums
  float* bias;               // [L][own rows of the four matrices]
  float *trajectory, *last, *noise;  // [T][E], the estimate of the clean one of the step before, and this step's draw
  Quad* plan;                // rows of this step and of the next one
};

BAC_FN void add(Quad& to, const Quad& q) { to.x += q.x, to.y += q.y, to.z += q.z; }
BAC_FN void add(Quad& to, float factor, const Quad& q) { to.x += factor * q.x, to.y += factor * q.y, to.z += factor * q.z; }
// Where token `token` of a column is, in numbers from the column's first.
BAC_FN int place(int token) { return token / 3 * 4 + token % 3; }

// Eight weights that follow each other.
BAC_FN void eight(const float* w, float (&to)[8]) {
  const Quad a = *reinterpret_cast<const Quad*>(w), b = *reinterpret_cast<const Quad*>(w + 4);
  to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w, to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}
struct alignas(16) Halves {
  Half half[8];
};
BAC_FN void eight(const Half* w, float (&to)[8]) {
  const Halves halves = *reinterpret_cast<const Halves*>(w);
  BAC_UNROLL for (int i = 0; i < 8; ++i) to[i] = widen(halves.half[i]);
}

// emit(row, group, quad) for `rows` rows of weights, `most` of any thread block, of length `depth`, times activations
// [depth][kStride] of all tokens. row_at(row) points to a row's weights.
//
// A lane sums one row for one group of tokens, or a few lanes share that: what is done besides multiplying is what takes the
// time. Warps have slices of the length. The sum runs in one order whatever the number of thread blocks. Threads that emit do
// not wait for others: `part` is not used again before they do.
template <class RowAt, class Emit>
BAC_FN void product(const Block& b, int rows, int most_rows, int depth, RowAt row_at, const Quad* from, Emit emit) {
  constexpr int kUnit = 8, kDeep = 2;  // columns of a unit; units of a lane at least
  constexpr int kRows = kLanes / kGroups;  // of a warp at most
  const int all = (most_rows + kRows - 1) / kRows, some = (most_rows + all - 1) / all, outputs = some * kGroups;
  const int parts = outputs <= 8 ? 4 : outputs <= 16 ? 2 : 1, units = (depth + kUnit - 1) / kUnit;
  for (int before = 0; before < all; before += kWarps) {
    const int chunks = least(all - before, kWarps), slices = most(least(kWarps / chunks, units / (parts * kDeep)), 1);
    const int each = (units + slices * parts - 1) / (slices * parts);
    if (before > 0) b.team.sync();
    b.team.each_warp([&](int warp) {
      const int chunk = warp % chunks, slice = warp / chunks;
      if (slice >= slices) return;
      PerLane<float[3]> sums;
      each_lane([&](int lane) {
        const int output = least(lane / parts, outputs - 1), row = least((before + chunk) * some + output % some, rows - 1);
        const auto* weights = row_at(row);
        float *sum = sums[lane], weight[kUnit];
        const int first = (slice * parts + lane % parts) * each;
        sum[0] = sum[1] = sum[2] = 0;
        BAC_UNROLL for (int u = 0; u < each; ++u) {
          const int unit = first + u;
          if (unit >= units) break;
          eight(weights + unit * kUnit, weight);
          const Quad* y = from + unit * kUnit * kStride + output / some;
          BAC_UNROLL for (int k = 0; k < kUnit; ++k) {
            const Quad q = y[k * kStride];
            sum[0] += weight[k] * q.x, sum[1] += weight[k] * q.y, sum[2] += weight[k] * q.z;
          }
        }
      });
      sum_parts(sums, parts);
      each_lane([&](int lane) {
        if (lane % parts == 0 && lane / parts < outputs) b.part[(slice * chunks + chunk) * outputs + lane / parts] = Quad{sums[lane][0], sums[lane][1], sums[lane][2], 0};
      });
    });
    b.team.sync();
    b.team.each_item(chunks * outputs, [&](int i) {
      const int row = (before + i / outputs) * some + i % some, group = i % outputs / some;
      if (row >= rows) return;
      Quad total = b.part[i];
      BAC_UNROLL for (int slice = 1; slice < slices; ++slice) add(total, b.part[slice * chunks * outputs + i]);
      emit(row, group, total);
    });
  }
}

// Collects what all thread blocks send, [G][columns], for a product: to `to` [columns][kStride]. The thread block waits afterwards.
BAC_FN void collect(const Block& b, const Quad* from, int columns, unsigned flag, Quad* to) {
  constexpr int kAtOnce = 6;  // loads of a thread that are on their way
  const int size = columns * kGroups;
  b.team.each_batch<kAtOnce>(size, [&](const Items& item) {
    Quad quad[kAtOnce];
    receive(quad, flag, [&](int j) { return item(j) < size ? from + item(j) : nullptr; });
    BAC_UNROLL for (int j = 0; j < kAtOnce; ++j)
      if (item(j) < size) to[item(j) % columns * kStride + item(j) / columns] = quad[j];
  });
  b.team.sync();
}

// normed = norm of the residual stream, with gain and shift [2][D]; the thread block waits before and after. `Fetched`: what was
// fetched is there then.
template <bool Fetched>
BAC_FN void normalise(const Block& b, const float* norm) {
  const int width = b.s.width;
  constexpr int kColumns = Sizes::kColumns;
  b.team.each_warp([&](int warp) {
    PerLane<float[2 * kColumns]> scale;  // gain and shift, on their way while others finish the residual stream
    each_lane([&](int lane) {
      BAC_UNROLL for (int j = 0; j < kColumns; ++j) {
        const int k = lane + j * kLanes;
        if (k < width) scale[lane][2 * j] = norm[k], scale[lane][2 * j + 1] = norm[width + k];
      }
    });
    b.team.sync_once(warp);
    for (int token = warp; token < b.s.tokens; token += kWarps) {
      const int at = place(token);
      PerLane<float[kColumns]> x;
      PerLane<float> mean, spread;
      each_lane([&](int lane) {
        mean[lane] = 0;
        BAC_UNROLL for (int j = 0; j < kColumns; ++j) {
          const int k = lane + j * kLanes;
          x[lane][j] = k < width ? reinterpret_cast<const float*>(b.x + k * kStride)[at] : 0.0f;
          mean[lane] += x[lane][j];
        }
      });
      sum_lanes(mean);
      each_lane([&](int lane) {
        mean[lane] *= 1.0f / float(width);
        spread[lane] = 0;
        BAC_UNROLL for (int j = 0; j < kColumns; ++j) {
          const float off = x[lane][j] - mean[lane];
          if (lane + j * kLanes < width) spread[lane] += off * off;
        }
      });
      sum_lanes(spread);
      each_lane([&](int lane) {
        const float scaled = inverse_root(spread[lane] * (1.0f / float(width)) + b.p.eps);
        BAC_UNROLL for (int j = 0; j < kColumns; ++j) {
          const int k = lane + j * kLanes;
          if (k < width) reinterpret_cast<float*>(b.normed + k * kStride)[at] = (x[lane][j] - mean[lane]) * (scaled * scale[lane][2 * j]) + scale[lane][2 * j + 1];
        }
      });
    }
  });
  if (Fetched) arrived();
  b.team.sync();
}

// A thread block's share of the layers' weights. It owns the rows of each matrix that `Block::begin` deals out, and keeps them
// layer by layer: qkv, output, up, down. Rows that do not fit into shared memory are read from global memory.
template <class W>
struct Weights {
  BAC_FN Weights(const Block& b) : b(b), width(b.s.width), qkv(b.own(3 * width)), out(b.own(width)), up(b.own(4 * width)), down(b.own(width)) {
    const int before = b.begin(3 * width) + b.begin(width) + b.begin(4 * width) + 4 * b.begin(width);
    global = b.p.weights + (long long)b.s.layers * before * width * int(sizeof(W));
  }
  BAC_FN int layer_rows() const { return qkv + out + up + 4 * down; }  // a row of down is as long as four others
  // Row `row` of length `depth` behind the first `before` rows of length D of a layer.
  BAC_FN const W* row(int layer, int before, int row, int depth) const {
    const int at = ((layer * layer_rows() + before) * width + row * depth) * int(sizeof(W));
#if defined(BAC_FITS) && BAC_FITS
    const char* start = b.shared;
#else
    const char* start = at + depth * int(sizeof(W)) <= b.p.resident ? b.shared : global;
#endif
    return reinterpret_cast<const W*>(start + at);
  }
  // The biases of the rows of a layer, in the same order.
  BAC_FN const float* biases(int layer) const { return b.bias + layer * Scratch::rows(b.s); }
  BAC_FN void load() const {
    const int bytes = b.s.layers * layer_rows() * width * int(sizeof(W)), quads = least(bytes, b.p.resident) / int(sizeof(Quad));
    Quad* to = reinterpret_cast<Quad*>(b.shared);
    b.team.each_item(quads, [&](int i) { fetch(to + i, reinterpret_cast<const Quad*>(global) + i); });
    const int rows = qkv + out + up + down;
    b.team.each_item(b.s.layers * rows, [&](int i) {
      const int layer = i / rows, row = i % rows;
      const float* bias = b.p.bias + layer * 9 * width;
      if (row < qkv) bias += b.begin(3 * width) + row;
      else if (row < qkv + out) bias += 3 * width + b.begin(width) + row - qkv;
      else if (row < qkv + out + up) bias += 4 * width + b.begin(4 * width) + row - qkv - out;
      else bias += 8 * width + b.begin(width) + row - qkv - out - up;
      b.bias[layer * Scratch::rows(b.s) + row] = *bias;
    });
  }
  const Block& b;
  const int width, qkv, out, up, down;  // rows
  const char* global;
};

}  // namespace bac
