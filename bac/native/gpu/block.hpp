// One thread block: its shared memory, its share of the weights, and the arithmetic that all phases use.
#pragma once
#include "machine.hpp"

namespace bac {

// Numbers of shared memory beside the weights; bac/native/gpu/shares.py computes the same.
struct Scratch {
  BAC_FN explicit Scratch(const Params& p)
      : columns(p.heads * (1 + p.observed)), row(3 * p.width + 4), x(0), normed(x + kTile * p.width), wide(normed + kTile * p.width),
        scores(wide + most(kTile * row, 2 * columns * p.width)), part(scores + up(most(p.heads * kTile * kTile, columns * kTile))), trajectory(part + kRowsAtOnce * kTile),
        last(trajectory + up(kTile * p.numbers)), bytes(4 * (last + up(kTile * p.numbers))) {}
  static BAC_FN int up(int count) { return (count + 3) / 4 * 4; }
  int columns, row;  // columns of the cross-attention; numbers between rows of qkv, no multiple of the banks
  int x, normed, wide, scores, part, trajectory, last, bytes;
};

struct Block {
  BAC_FN Block(const Params& p, char* shared, int index, int blocks, const Team& team)
      : p(p), at(p), team(team), index(index), blocks(blocks), shared(shared) {
    float* scratch = reinterpret_cast<float*>(shared + p.resident);
    x = scratch + at.x, normed = scratch + at.normed, wide = scratch + at.wide, scores = scratch + at.scores;
    part = scratch + at.part, trajectory = scratch + at.trajectory, last = scratch + at.last;
  }
  BAC_FN int begin(int total) const { return share(total, index, blocks); }
  BAC_FN int own(int total) const { return share(total, index + 1, blocks) - begin(total); }

  const Params& p;
  const Scratch at;
  const Team team;
  const int index, blocks;
  char* const shared;
  float *x, *normed;       // [kTile][D] residual stream; its norm, or the heads' outputs
  float* wide;             // [kTile][3 D + 4] queries, keys and values; [2][H (1 + S)][D] folded keys and values
  float* scores;           // [H][kTile][kTile] or [kTile][H (1 + S)]
  float* part;             // [kRowsAtOnce][kTile] partial sums
  float *trajectory, *last;  // [kTile][E] and the estimate of the clean one of the step before
};

BAC_FN Pair pair_at(const float* p) { return *reinterpret_cast<const Pair*>(p); }
BAC_FN Pair pair_at(const Half* p) {
  struct alignas(4) Two { Half first, second; };
  const Two two = *reinterpret_cast<const Two*>(p);
  return {widen(two.first), widen(two.second)};
}
BAC_FN Quad quad_at(const float* p) { return *reinterpret_cast<const Quad*>(p); }

// emit(row, token, sum) for `rows` rows of weights of length `depth` (even) times the activations of `tokens` tokens.
// row_at(row) points to a row's weights, pair(token, k) gives two activations, also of tokens up to kTile, which are not used.
// A warp takes two rows and a slice of their length; the sum runs in one order whatever the number of thread blocks.
template <class RowAt, class PairOf, class Emit>
BAC_FN void product(const Block& b, int rows, int depth, int tokens, RowAt row_at, PairOf pair, Emit emit) {
  constexpr int kUnit = 2 * kLanes;
  for (int from = 0; from < rows; from += kRowsAtOnce) {
    const int some = least(rows - from, kRowsAtOnce), groups = (some + 1) / 2, units = (depth + kUnit - 1) / kUnit;
    const int slices = most(1, least(units, kWarps / groups));
    b.team.each_warp([&](int warp) {
      for (int task = warp; task < groups * slices; task += kWarps) {
        const int group = task % groups, slice = task / groups, first = 2 * group, second = least(first + 1, some - 1);
        PerLane<float[2 * kTile]> sums;
        each_lane([&](int lane) {
          const auto *a = row_at(from + first), *c = row_at(from + second);
          BAC_UNROLL for (int t = 0; t < 2 * kTile; ++t) sums[lane][t] = 0;
          for (int unit = units * slice / slices; unit < units * (slice + 1) / slices; ++unit) {
            const int k = unit * kUnit + 2 * lane;
            if (k >= depth) break;
            const Pair u = pair_at(a + k), v = pair_at(c + k);
            BAC_UNROLL for (int t = 0; t < kTile; ++t) {
              const Pair y = pair(t, k);
              sums[lane][t] += u.x * y.x + u.y * y.y;
              sums[lane][kTile + t] += v.x * y.x + v.y * y.y;
            }
          }
        });
        spread_sums<2 * kTile>(sums, [&](int which, float sum) {
          const int row = first + which / kTile;
          if (row < some) b.part[(slice * some + row) * kTile + which % kTile] = sum;
        });
      }
    });
    b.team.sync();
    b.team.each_item(some * kTile, [&](int i) {
      const int token = i % kTile;
      if (token >= tokens) return;
      float sum = b.part[i];
      for (int slice = 1; slice < slices; ++slice) sum += b.part[slice * some * kTile + i];
      emit(from + i / kTile, token, sum);
    });
    b.team.sync();
  }
}

// normed = norm of the residual stream, with gain and shift [2][D]; the thread block waits before and after. `before_wait` is
// called by every thread that then waits.
template <class F>
BAC_FN void normalise(const Block& b, const float* norm, F before_wait) {
  const int width = b.p.width;
  b.team.sync();
  b.team.each_warp([&](int warp) {
    for (int token = warp; token < b.p.tokens; token += kWarps) {
      const float* x = b.x + token * width;
      float* out = b.normed + token * width;
      PerLane<float> mean, spread;
      each_lane([&](int lane) {
        mean[lane] = 0;
        for (int k = lane; k < width; k += kLanes) mean[lane] += x[k];
      });
      sum_lanes(mean);
      each_lane([&](int lane) {
        mean[lane] /= float(width);
        spread[lane] = 0;
        for (int k = lane; k < width; k += kLanes) spread[lane] += (x[k] - mean[lane]) * (x[k] - mean[lane]);
      });
      sum_lanes(spread);
      each_lane([&](int lane) {
        const float inverse = 1.0f / sqrtf(spread[lane] / float(width) + b.p.eps);
        for (int k = lane; k < width; k += kLanes) out[k] = (x[k] - mean[lane]) * inverse * norm[k] + norm[width + k];
      });
    }
  });
  before_wait();
  b.team.sync();
}
BAC_FN void normalise(const Block& b, const float* norm) {
  normalise(b, norm, [] {});
}

// A thread block's share of the layers' weights. It owns the rows of each matrix that `Block::begin` deals out, and keeps them
// layer by layer: qkv, output, up, down. Rows that do not fit into shared memory are read from global memory.
template <class W>
struct Weights {
  BAC_FN Weights(const Block& b) : b(b), width(b.p.width), qkv(b.own(3 * width)), out(b.own(width)), up(b.own(4 * width)), down(b.own(width)) {
    const int before = b.begin(3 * width) + b.begin(width) + b.begin(4 * width) + 4 * b.begin(width);
    global = b.p.weights + (long long)b.p.layers * before * width * int(sizeof(W));
  }
  BAC_FN int layer_rows() const { return qkv + out + up + 4 * down; }  // a row of down is as long as four others
  // Row `row` of length `depth` behind the first `before` rows of length D of a layer.
  BAC_FN const W* row(int layer, int before, int row, int depth) const {
    const long long at = ((long long)(layer * layer_rows() + before) * width + (long long)row * depth) * int(sizeof(W));
    const char* start = at + depth * int(sizeof(W)) <= b.p.resident ? b.shared : global;
    return reinterpret_cast<const W*>(start + at);
  }
  BAC_FN void load() const {
    const long long bytes = (long long)b.p.layers * layer_rows() * width * int(sizeof(W));
    const int quads = int(bytes < b.p.resident ? bytes : b.p.resident) / int(sizeof(Quad));
    const Quad* from = reinterpret_cast<const Quad*>(global);
    Quad* to = reinterpret_cast<Quad*>(b.shared);
    b.team.each_item(quads, [&](int i) { to[i] = from[i]; });
  }
  const Block& b;
  const int width, qkv, out, up, down;  // rows
  const char* global;
};

}  // namespace bac
