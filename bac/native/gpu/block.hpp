// One thread block: its shared memory, its share of the weights, and the arithmetic that all phases use.
#pragma once
#include "machine.hpp"

namespace bac {

// Shared memory beside the weights, in quads; bac/native/gpu/shares.py computes the same.
struct Scratch {
  BAC_FN explicit Scratch(const Sizes& s)
      : row(2 + 2 * (3 * s.layers + 1)), x(0), normed(x + s.width * kStride), wide(normed + s.width * kStride),
        memo(wide + most(3 * s.width * kStride, s.columns() * s.width / 2)), cross_bias(memo + s.width * kGroups),
        column_bias(cross_bias + s.width / 4), scores(column_bias + up(s.columns())),
        part(scores + most(s.heads * kTile, s.columns()) * kGroups), bias(part + 2 * kPart), trajectory(bias + up(s.layers * rows(s))),
        last(trajectory + up(s.tokens * s.numbers)), noise(last + up(s.tokens * s.numbers)), plan(noise + up(s.tokens * s.numbers)),
        bytes(16 * (plan + 2 * row)) {}
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
    keys = floats(at.wide), values = keys + s.columns() * s.width;
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
  Quad* wide;                // [3 D][kStride] queries, keys and values
  float *keys, *values;      // [H (1 + S)][D] of the folded cross-attention, in place of these
  Quad* memo;                // [G][D] a sum of stored outputs
  float *cross_bias, *column_bias;  // [D], [H (1 + S)] with the keys
  Quad* scores;              // [H][kTile][G] by queries, or [H (1 + S)][G] by columns
  Quad* part;                // [2][kPart] partial sums
  float* bias;               // [L][own rows of the four matrices]
  float *trajectory, *last, *noise;  // [T][E], the estimate of the clean one of the step before, and this step's draw
  Quad* plan;                // rows of this step and of the next one
};

BAC_FN void add(Quad& to, const Quad& q) { to.x += q.x, to.y += q.y, to.z += q.z; }
BAC_FN void add(Quad& to, float factor, const Quad& q) { to.x += factor * q.x, to.y += factor * q.y, to.z += factor * q.z; }
BAC_FN float value(float w) { return w; }
BAC_FN float value(Half w) { return widen(w); }
// Where token `token` of a column is, in numbers from the column's first.
BAC_FN int place(int token) { return token / 3 * 4 + token % 3; }

// Activations of a product that lie in shared memory, [depth][kStride].
struct Near {
  const Quad* from;
  template <int N>
  BAC_FN void operator()(Quad (&quad)[N], int column, int stop, int) const {
    BAC_UNROLL for (int i = 0; i < N; ++i) {
      const int k = column + i / kGroups * kLanes;
      if (k < stop) quad[i] = from[k * kStride + i % kGroups];
    }
  }
};
// Those that all thread blocks have sent, [G][depth].
struct Far {
  const Quad* from;
  unsigned flag;
  template <int N>
  BAC_FN void operator()(Quad (&quad)[N], int column, int stop, int depth) const {
    receive(quad, flag, [&](int i) {
      const int k = column + i / kGroups * kLanes;
      return k < stop ? from + i % kGroups * depth + k : nullptr;
    });
  }
};

// emit(row, group, quad) for `rows` rows of weights of length `depth` times activations of all tokens. No thread block has more
// than `most` rows. row_at(row) points to a row's weights. A warp takes `Rows` rows and a slice of their length; the sum runs in
// one order whatever the number of thread blocks. Threads that emit do not wait for others: `part` is not used before they do.
template <int Rows, class RowAt, class Source, class Emit>
BAC_FN void product(const Block& b, Quad* part, int rows, int most_rows, int depth, RowAt row_at, Source source, Emit emit) {
  constexpr int kRows = Rows < kMostRows ? Rows : kMostRows, kUnits = 2;  // units of columns that a lane takes at once
  const int units = (depth + kLanes - 1) / kLanes;
  for (int from = 0; from < most_rows; from += kWarps * kRows) {
    const int some = least(rows - from, kWarps * kRows), at_most = least(most_rows - from, kWarps * kRows);
    const int groups = (at_most + kRows - 1) / kRows, each = most((units + kWarps / groups - 1) / (kWarps / groups), 1), slices = (units + each - 1) / each;
    if (from > 0) b.team.sync();
    b.team.each_warp([&](int warp) {
      const int group = warp % groups, slice = warp / groups, first = group * kRows;
      if (slice >= slices || first >= some) return;
      PerLane<float[kRows * kTile]> sums;
      each_lane([&](int lane) {
        BAC_UNROLL for (int i = 0; i < kRows * kTile; ++i) sums[lane][i] = 0;
        for (int unit = slice * each; unit < least(slice * each + each, units); unit += kUnits) {
          const int column = unit * kLanes + lane, stop = least(depth, (slice * each + each) * kLanes);
          float weight[kUnits][kRows];
          BAC_UNROLL for (int u = 0; u < kUnits; ++u) BAC_UNROLL for (int r = 0; r < kRows; ++r)
            weight[u][r] = column + u * kLanes < stop ? value(row_at(from + least(first + r, some - 1))[column + u * kLanes]) : 0.0f;
          Quad quad[kUnits * kGroups];
          source(quad, column, stop, depth);
          BAC_UNROLL for (int u = 0; u < kUnits; ++u) {
            if (column + u * kLanes >= stop) continue;
            BAC_UNROLL for (int g = 0; g < kGroups; ++g) BAC_UNROLL for (int r = 0; r < kRows; ++r) {
              float* sum = &sums[lane][r * kTile + 3 * g];
              const Quad& y = quad[u * kGroups + g];
              sum[0] += weight[u][r] * y.x, sum[1] += weight[u][r] * y.y, sum[2] += weight[u][r] * y.z;
            }
          }
        }
      });
      spread_sums<kLanes>(sums, [&](int, int which, float sum) {
        const int row = first + which / kTile, token = which % kTile;
        if (row < some) reinterpret_cast<float*>(part + (slice * kGroups + token / 3) * some + row)[token % 3] = sum;
      });
    });
    b.team.sync();
    b.team.each_item(some * kGroups, [&](int i) {
      const int row = i % some, group = i / some;
      Quad total = part[group * some + row];
      for (int slice = 1; slice < slices; ++slice) add(total, part[(slice * kGroups + group) * some + row]);
      emit(from + row, group, total);
    });
  }
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
        mean[lane] /= float(width);
        spread[lane] = 0;
        BAC_UNROLL for (int j = 0; j < kColumns; ++j) {
          const float off = x[lane][j] - mean[lane];
          if (lane + j * kLanes < width) spread[lane] += off * off;
        }
      });
      sum_lanes(spread);
      each_lane([&](int lane) {
        const float inverse = 1.0f / sqrtf(spread[lane] / float(width) + b.p.eps);
        BAC_UNROLL for (int j = 0; j < kColumns; ++j) {
          const int k = lane + j * kLanes;
          if (k < width) reinterpret_cast<float*>(b.normed + k * kStride)[at] = (x[lane][j] - mean[lane]) * inverse * scale[lane][2 * j] + scale[lane][2 * j + 1];
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
