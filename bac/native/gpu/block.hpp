// One thread block: its shared memory, its share of the weights, and the arithmetic that all phases use.
#pragma once
#include "machine.hpp"

namespace bac {

// Shared memory beside the weights, in quads; bac/native/gpu/shares.py computes the same.
struct Scratch {
  BAC_FN explicit Scratch(const Sizes& s)
      : row(2 + 2 * (3 * s.layers + 1)), x(0), memo(x + s.width * kGroups), normed(memo + s.width * kGroups),
        wide(normed + halves(2 * s.tokens * pitch(s.width))),
        keys_end(wide + halves(2 * s.columns() * pitch(s.width))),
        head(wide + most(most(halves(4 * s.tokens * pitch(s.width)) + halves(2 * s.width * kValues), halves(2 * s.tokens * pitch(4 * s.width))), halves(2 * s.columns() * pitch(s.width)) + s.columns() * s.width / 4)),
        cross_bias(head + halves(2 * s.numbers * pitch(s.width))), column_bias(cross_bias + s.width / 4), gains(column_bias + up(s.columns())), scores(gains + s.width / 2),
        part(scores + s.columns() * kGroups), bias(part + kPart), moments(bias + up(s.layers * rows(s))),
        trajectory(moments + (2 * s.width / kLanes + 3) * kGroups), last(trajectory + up(s.tokens * s.numbers)), noise(last + up(s.tokens * s.numbers)),
        plan(noise + up(s.tokens * s.numbers)), bytes(16 * (plan + 2 * row)) {}
  static BAC_FN int up(int floats) { return (floats + 3) / 4; }
  static BAC_FN int halves(int count) { return (count + 7) / 8; }
  static BAC_FN int pitch(int depth) { return depth + kPad; }  // halves from a row of a matrix to the next
  // Rows of a layer's four matrices that a thread block has at most.
  static BAC_FN int rows(const Sizes& s) {
    return (3 * s.width + s.blocks - 1) / s.blocks + 2 * ((s.width + s.blocks - 1) / s.blocks) + (4 * s.width + s.blocks - 1) / s.blocks;
  }
  int row;  // quads of a step's row of the plan
  int x, memo, normed, wide, keys_end, head, cross_bias, column_bias, gains, scores, part, bias, moments, trajectory, last, noise, plan, bytes;
};

struct Block {
  BAC_FN Block(const Params& p, char* shared, int index, const Team& team) : p(p), s(p), at(s), team(team), index(index), shared(shared) {
    Quad* scratch = reinterpret_cast<Quad*>(shared + p.resident);
    const auto floats = [&](int quad) { return reinterpret_cast<float*>(scratch + quad); };
    const auto halves = [&](int quad) { return reinterpret_cast<Half*>(scratch + quad); };
    x = scratch + at.x, memo = scratch + at.memo, scores = scratch + at.scores, part = scratch + at.part;
    moments = scratch + at.moments, plan = scratch + at.plan;
    normed = halves(at.normed), queries = halves(at.wide), hidden = halves(at.wide), keys = halves(at.wide), head = halves(at.head);
    gains = floats(at.gains), values = floats(at.keys_end), cross_bias = floats(at.cross_bias), column_bias = floats(at.column_bias), bias = floats(at.bias);
    trajectory = floats(at.trajectory), last = floats(at.last), noise = floats(at.noise);
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
  Quad *x, *memo;            // [G][D] residual stream, and a sum of stored outputs
  Half* normed;              // [2][T][D + kPad] its norm, or the heads' outputs: high parts, then low ones
  Half* queries;             // [2][T][D + kPad], keys the same, and values [2][D][kValues]; or, in their place:
  Half* hidden;              // [2][T][4 D + kPad] hidden units
  Half* keys;                // [H (1 + S)][2][D + kPad] keys of the folded cross-attention
  float* values;             // [H (1 + S)][D] and its values
  Half* head;                // [E][2][D + kPad] weights of the read-out
  float *cross_bias, *column_bias;  // [D], [H (1 + S)] with the keys
  float* gains;              // [2][D] gain and shift of a norm
  Quad* scores;              // [H (1 + S)][G] of the cross-attention
  Quad* part;                // [kPart] partial sums
  float* bias;               // [L][own rows of the four matrices]
  Quad* moments;             // [D / 32][G][2] sums of quads, and [3][G] shift, mean and scale of tokens
  float *trajectory, *last, *noise;  // [T][E], the estimate of the clean one of the step before, and this step's draw
  Quad* plan;                // rows of this step and of the next one
};

BAC_FN void add(Quad& to, const Quad& q) { to.x += q.x, to.y += q.y, to.z += q.z; }
BAC_FN void add(Quad& to, float factor, const Quad& q) { to.x += factor * q.x, to.y += factor * q.y, to.z += factor * q.z; }
// Where token `token` of a column is, in numbers from the column's first.
BAC_FN int place(int token) { return token / 3 * 4 + token % 3; }

// Stores three tokens of a column of activations, [2][T] rows `pitch` apart from each other, for a product.
BAC_FN void put(const Block& b, Half* to, int pitch, int group, int column, const Split (&parts)[3]) {
  Half* at = to + 3 * group * pitch + column;
  BAC_UNROLL for (int t = 0; t < 3; ++t)
    if (3 * group + t < b.s.tokens) at[t * pitch] = parts[t].high, at[(b.s.tokens + t) * pitch] = parts[t].low;
}
BAC_FN void put_numbers(const Block& b, Half* to, int pitch, int group, int column, const Quad& q) {
  const Split parts[3] = {split(q.x), split(q.y), split(q.z)};
  put(b, to, pitch, group, column, parts);
}
BAC_FN void put_packed(const Block& b, Half* to, int pitch, int group, int column, const Quad& q) {
  const Split parts[3] = {unpacked(q.x), unpacked(q.y), unpacked(q.z)};
  put(b, to, pitch, group, column, parts);
}

BAC_FN unsigned pair_at(const Half* p) { return *reinterpret_cast<const unsigned*>(p); }
// A lane's activations for `multiply`: of all tokens, at columns from `from` on, which is the lane's.
BAC_FN void tokens_at(unsigned (&to)[4], const Half* from, int pitch, int lane, int tokens) {
  const Half *a = from + least(lane / 4, tokens - 1) * pitch, *c = from + least(lane / 4 + 8, tokens - 1) * pitch;
  to[0] = pair_at(a), to[1] = pair_at(c), to[2] = pair_at(a + 8), to[3] = pair_at(c + 8);
}

// Partial sums of a product in `part`: of `slices` slices of its length, `outputs` quads each.
struct Sums {
  BAC_FN Quad total(const Block& b, int row, int group) const {
    const int i = (row / kRows * kGroups + group) * kRows + row % kRows;
    Quad total = b.part[i];
    BAC_UNROLL for (int slice = 1; slice < slices; ++slice) add(total, b.part[slice * outputs + i]);
    return total;
  }
  int slices, outputs;
};

// Multiplies rows before ... before + tiles * kRows - 1 of weights with activations; see `product`.
template <bool Low, class RowAt>
BAC_FN Sums multiply_rows(const Block& b, int before, int rows, int tiles, int depth, RowAt row_at, const Half* from) {
  const int units = depth / kDeep, tokens = b.s.tokens, pitch = Scratch::pitch(depth);
  const int each = most((units + kWarps / tiles - 1) / (kWarps / tiles), 2), slices = (units + each - 1) / each;
  b.team.each_warp([&](int warp) {
    const int tile = warp % tiles, slice = warp / tiles;
    if (slice >= slices) return;
    PerLane<float[4]> high, low;
    each_lane([&](int lane) {
      BAC_UNROLL for (int i = 0; i < 4; ++i) high[lane][i] = low[lane][i] = 0;
    });
    BAC_UNROLL for (int u = 0; u < each; ++u) {
      const int unit = slice * each + u;
      if (unit >= units) break;
      PerLane<unsigned[4]> of_high, of_low;
      PerLane<unsigned[2]> weights, below;
      each_lane([&](int lane) {
        const int column = unit * kDeep + lane % 4 * 2;
        const Half* row = row_at(least(before + tile * kRows + lane / 4, rows - 1)) + column;
        weights[lane][0] = pair_at(row), weights[lane][1] = pair_at(row + 8);
        if (Low) below[lane][0] = pair_at(row + pitch), below[lane][1] = pair_at(row + pitch + 8);
        tokens_at(of_high[lane], from + column, pitch, lane, tokens);
        tokens_at(of_low[lane], from + tokens * pitch + column, pitch, lane, tokens);
      });
      multiply(high, of_high, weights);
      multiply(low, of_low, weights);
      if (Low) multiply(low, of_high, below);
    }
    each_lane([&](int lane) {
      BAC_UNROLL for (int i = 0; i < 4; ++i) {
        const int token = lane / 4 + i / 2 * 8, row = lane % 4 * 2 + i % 2;
        if (token >= kTile) continue;
        float* to = reinterpret_cast<float*>(b.part + ((slice * tiles + tile) * kGroups + token / 3) * kRows + row);
        to[token % 3] = high[lane][i] + low[lane][i] * (1.0f / kLow);
      }
    });
  });
  return {slices, tiles * kGroups * kRows};
}

// emit(row, group, quad) for `rows` rows of weights, `most` of any thread block, of length `depth`, times activations
// [2][T][depth + kPad] of all tokens. row_at(row) points to a row's high parts; `Low`: its low parts come kPad behind them.
//
// A warp multiplies a tile of rows and a slice of their length. The sum runs in one order whatever the number of thread blocks.
// Threads that emit do not wait for others: `part` is not used again before they do.
template <bool Low, class RowAt, class Emit>
BAC_FN void product(const Block& b, int rows, int most_rows, int depth, RowAt row_at, const Half* from, Emit emit) {
  const int all = (most_rows + kRows - 1) / kRows;
  for (int before = 0; before < all; before += kWarps) {
    if (before > 0) b.team.sync();
    const Sums sums = multiply_rows<Low>(b, before * kRows, rows, least(all - before, kWarps), depth, row_at, from);
    b.team.sync();
    b.team.each_item(sums.outputs, [&](int i) {
      const int row = i / (kGroups * kRows) * kRows + i % kRows, group = i / kRows % kGroups;
      if (before * kRows + row < rows) emit(before * kRows + row, group, sums.total(b, row, group));
    });
  }
}

// use(column, group, quad) for what all thread blocks send, [G][columns]. The thread block waits afterwards.
template <class Use>
BAC_FN void collect(const Block& b, const Quad* from, int columns, unsigned flag, Use use) {
  constexpr int kAtOnce = 6;  // loads of a thread that are on their way
  const int size = columns * kGroups;
  b.team.each_batch<kAtOnce>(size, [&](const Items& item) {
    Quad quad[kAtOnce];
    receive(quad, flag, [&](int j) { return item(j) < size ? from + item(j) : nullptr; });
    BAC_UNROLL for (int j = 0; j < kAtOnce; ++j)
      if (item(j) < size) use(item(j) % columns, item(j) / columns, quad[j]);
  });
  b.team.sync();
}

constexpr int kMine = 2;  // quads of the residual stream that a thread takes at once

// normed = norm of the residual stream, whose quads change(items) updates before; with gain and shift [2][D]. All that was
// fetched is there then. The thread block waits afterwards.
//
// Variances are of distances to the mean that the token had at the norm before, so that a large mean costs no precision.
template <class Change>
BAC_FN void normalise(const Block& b, const float* norm, Change change) {
  const int width = b.s.width, size = width * kGroups, warps = width / kLanes;
  Quad *sums = b.moments, *shift = sums + 2 * warps * kGroups, *mean = shift + kGroups, *scale = mean + kGroups;
  b.team.each_late_item(width / 2, [&](int i) { fetch(reinterpret_cast<Quad*>(b.gains) + i, norm + 4 * i); });
  b.team.each_batch_warp<kMine>(size, [&](PerLane<Items>& items) {
    PerLane<float[6 * kMine]> moment;
    each_lane([&](int lane) {
      change(items[lane]);
      BAC_UNROLL for (int m = 0; m < kMine; ++m) {
        const int i = items[lane](m);
        Quad off{0, 0, 0, 0};
        if (i < size) off = b.x[i], add(off, -1.0f, shift[i / width]);
        float* to = moment[lane] + 6 * m;
        to[0] = off.x, to[1] = off.y, to[2] = off.z, to[3] = off.x * off.x, to[4] = off.y * off.y, to[5] = off.z * off.z;
      }
    });
    spread_sums<kLanes>(moment, [&](int lane, int which, float sum) {
      const int first = items[lane](which / 6) / kLanes * kLanes;  // all of a warp are of one group
      float* to = reinterpret_cast<float*>(sums + (first % width / kLanes * kGroups + first / width) * 2 + which % 6 / 3);
      if (first < size) to[which % 3] = sum;
    });
  });
  arrived();
  b.team.sync();
  b.team.each_item(kTile, [&](int token) {
    const int group = token / 3, t = token % 3;
    float first = 0, second = 0;
    BAC_UNROLL for (int warp = 0; warp < warps; ++warp) {
      const Quad* sum = sums + (warp * kGroups + group) * 2;
      first += reinterpret_cast<const float*>(sum)[t], second += reinterpret_cast<const float*>(sum + 1)[t];
    }
    first *= 1.0f / float(width), second *= 1.0f / float(width);
    float* now = reinterpret_cast<float*>(shift + group) + t;
    reinterpret_cast<float*>(mean + group)[t] = *now += first;
    reinterpret_cast<float*>(scale + group)[t] = inverse_root(fmaxf(second - first * first, 0.0f) + b.p.eps);
  });
  b.team.sync();
  b.team.each_batch<kMine>(size, [&](const Items& items) {
    BAC_UNROLL for (int m = 0; m < kMine; ++m) {
      const int i = items(m), column = i % width, group = i / width;
      if (i >= size) continue;
      const Quad q = b.x[i], off = mean[group], by = scale[group];
      const float gain = b.gains[column], add = b.gains[width + column];
      put_numbers(b, b.normed, Scratch::pitch(width), group, column, Quad{(q.x - off.x) * by.x * gain + add, (q.y - off.y) * by.y * gain + add, (q.z - off.z) * by.z * gain + add, 0});
    }
  });
  b.team.sync();
}

// A thread block's share of the layers' weights. It owns the rows of each matrix that `Block::begin` deals out, and keeps them
// layer by layer: qkv, output, up, down. A row has its high parts, with `Low` its low parts, and kPad halves behind each. Rows that
// do not fit into shared memory are read from global memory.
template <bool Low>
struct Weights {
  BAC_FN Weights(const Block& b) : b(b), width(b.s.width), qkv(b.own(3 * width)), out(b.own(width)), up(b.own(4 * width)), down(b.own(width)) {
    const int before = (b.begin(3 * width) + b.begin(width) + b.begin(4 * width)) * length(width) + b.begin(width) * length(4 * width);
    global = b.p.weights + (long long)b.s.layers * before * int(sizeof(Half));
  }
  static BAC_FN int length(int depth) { return Scratch::pitch(depth) * (Low ? 2 : 1); }  // halves of a row
  BAC_FN int layer() const { return (qkv + out + up) * length(width) + down * length(4 * width); }
  // Row `row` of length `depth` behind the first `before` rows of length D of a layer.
  BAC_FN const Half* row(int layer, int before, int row, int depth) const {
    const int at = (layer * this->layer() + before * length(width) + row * length(depth)) * int(sizeof(Half));
#if defined(BAC_FITS) && BAC_FITS
    const char* start = b.shared;
#else
    const char* start = at + length(depth) * int(sizeof(Half)) <= b.p.resident ? b.shared : global;
#endif
    return reinterpret_cast<const Half*>(start + at);
  }
  // The biases of the rows of a layer, in the same order.
  BAC_FN const float* biases(int layer) const { return b.bias + layer * Scratch::rows(b.s); }
  BAC_FN void load() const {
    const int bytes = b.s.layers * layer() * int(sizeof(Half)), quads = least(bytes, b.p.resident) / int(sizeof(Quad));
    Quad* to = reinterpret_cast<Quad*>(b.shared);
    b.team.each_item(quads, [&](int i) { fetch(to + i, reinterpret_cast<const Quad*>(global) + i); });
    const int rows = qkv + out + up + down, head = Scratch::halves(2 * b.s.numbers * Scratch::pitch(width));
    b.team.each_item(head, [&](int i) { fetch(reinterpret_cast<Quad*>(b.head) + i, reinterpret_cast<const Quad*>(b.p.head) + i); });
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
