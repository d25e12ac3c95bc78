// Phases that encode the observed condition tokens and fold them into the cross-attention of every layer (see bac.folding).
// Their weights are used once, and read from global memory.
#pragma once
#include "block.hpp"

namespace bac {

BAC_FN float mish(float x) { return x * tanhf(x > 20.0f ? x : log1pf(expf(x))); }

// emit(row, group, quad) for `rows` rows of weights, `most` of any thread block, of length `depth`, times activations
// [depth][kStride] of all tokens; row_at(row) points to a row's weights. Each lane sums one row for one group, warps have slices
// of the length.
template <class RowAt, class Emit>
BAC_FN void product_once(const Block& b, int rows, int most_rows, int depth, RowAt row_at, const Quad* from, Emit emit) {
  constexpr int kAtOnce = kLanes / kGroups;  // rows of a warp at most
  const int all = (most_rows + kAtOnce - 1) / kAtOnce, some = (most_rows + all - 1) / all, outputs = some * kGroups;
  for (int before = 0; before < all; before += kWarps) {
    const int chunks = least(all - before, kWarps), slices = kWarps / chunks, each = (depth + slices - 1) / slices;
    b.team.sync();
    b.team.each_warp([&](int warp) {
      const int chunk = warp % chunks, slice = warp / chunks;
      if (slice >= slices) return;
      each_lane([&](int lane) {
        if (lane >= outputs) return;
        const float* weights = row_at(least((before + chunk) * some + lane % some, rows - 1));
        Quad sum{0, 0, 0, 0};
        for (int k = slice * each; k < least(slice * each + each, depth); ++k) add(sum, weights[k], from[k * kStride + lane / some]);
        b.part[(slice * chunks + chunk) * outputs + lane] = sum;
      });
    });
    b.team.sync();
    b.team.each_item(chunks * outputs, [&](int i) {
      const int row = (before + i / outputs) * some + i % some, group = i % outputs / some;
      if (row >= rows) return;
      Quad total = b.part[i];
      for (int slice = 1; slice < slices; ++slice) add(total, b.part[slice * chunks * outputs + i]);
      emit(row, group, total);
    });
  }
}

// Where activations [depth][kStride] are, before there is a residual stream: in its place and behind it.
BAC_FN Quad* room(const Block& b) { return b.x; }

BAC_FN void condition_hidden(const Block& b, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(4 * width), numbers = p.observation_width;
  b.team.each_item(b.s.observed * width, [&](int i) {
    const int token = i / width, column = i % width;
    float total = p.cond_position[i];
    for (int k = 0; k < numbers; ++k) total += p.cond_embed[column * numbers + k] * p.observation[token * numbers + k];
    reinterpret_cast<float*>(room(b) + column * kStride)[place(token)] = total;
  });
  product_once(
      b, b.own(4 * width), b.most_rows(4 * width), width, [&](int row) { return p.cond_up + (long long)(begin + row) * width; }, room(b),
      [&](int row, int group, const Quad& q) {
        const float bias = p.cond_up_bias[begin + row];
        send(p.wide + group * 4 * width + begin + row, mish(q.x + bias), mish(q.y + bias), mish(q.z + bias), flag);
      });
}

BAC_FN void condition_tokens(const Block& b, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(width);
  collect(b, p.wide, 4 * width, flag - 1, [&](int column, int group, const Quad& q) { room(b)[column * kStride + group] = q; });
  product_once(
      b, b.own(width), b.most_rows(width), 4 * width, [&](int row) { return p.cond_down + (long long)(begin + row) * 4 * width; }, room(b),
      [&](int row, int group, const Quad& q) {
        const float bias = p.cond_down_bias[begin + row];
        send(p.token + group * width + begin + row, q.x + bias, q.y + bias, q.z + bias, flag);
      });
}

// Keys and values of all layers.
BAC_FN void condition_keys_values(const Block& b, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, rows = b.s.layers * 2 * width, begin = b.begin(rows);
  collect(b, p.token, width, flag - 1, [&](int column, int group, const Quad& q) { room(b)[column * kStride + group] = q; });
  product_once(
      b, b.own(rows), b.most_rows(rows), width, [&](int row) { return p.key_value + (long long)(begin + row) * width; }, room(b),
      [&](int row, int group, const Quad& q) {
        const float bias = p.key_value_bias[begin + row];
        send(p.projected + group * rows + begin + row, q.x + bias, q.y + bias, q.z + bias, flag);
      });
}

// key = Wq^T k / sqrt(D / H), bias = bq . k / sqrt(D / H), value = Wo v, for each layer, head and token.
BAC_FN void condition_fold(const Block& b, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, heads = b.s.heads, each = b.s.each(), observed = b.s.observed, rows = b.s.layers * 2 * width;
  const int total = b.s.layers * 2 * heads * width, begin = b.begin(total), end = begin + b.own(total);
  const float scale = inverse_root(float(each));
  for (int part = begin / width; part * width < end; ++part) {  // of a layer, keys or values, and a head
    const int head = part % heads, of_value = part / heads % 2, layer = part / heads / 2;
    b.team.sync();
    b.team.each_item(each * kGroups, [&](int i) {
      const int j = i % each, group = i / each;
      Quad quad[1];
      receive(quad, flag, [&](int) { return p.projected + group * rows + (layer * 2 + of_value) * width + head * each + j; });
      room(b)[j * kStride + group] = quad[0];
    });
    b.team.sync();
    const float* fold = (of_value ? p.fold_out : p.fold_query) + (long long)(layer * heads + head) * each * width;
    b.team.each_item(width, [&](int column) {
      if (part * width + column < begin || part * width + column >= end) return;
      Quad sum[kGroups];
      BAC_UNROLL for (int g = 0; g < kGroups; ++g) sum[g] = Quad{0, 0, 0, 0};
      for (int j = 0; j < each; ++j) {
        const float weight = fold[j * width + column];
        BAC_UNROLL for (int g = 0; g < kGroups; ++g) add(sum[g], weight, room(b)[j * kStride + g]);
      }
      BAC_UNROLL for (int g = 0; g < kGroups; ++g) {
        const float sums[3] = {sum[g].x, sum[g].y, sum[g].z};
        BAC_UNROLL for (int t = 0; t < 3; ++t) {
          if (3 * g + t >= observed) continue;
          const int row = (layer * observed + 3 * g + t) * heads + head;
          const Split parts = split(sums[t] * scale);
          Half* key = reinterpret_cast<Half*>(p.key) + row * 2 * width + column;
          if (of_value) p.value[row * width + column] = sums[t];
          else key[0] = parts.high, key[width] = parts.low;
        }
      }
    });
    if (of_value || part * width < begin) continue;
    b.team.each_item(observed, [&](int token) {
      float sum = 0;
      for (int j = 0; j < each; ++j)
        sum += reinterpret_cast<const float*>(room(b) + j * kStride)[place(token)] * p.query_bias[layer * width + head * each + j];
      p.key_bias[(layer * observed + token) * heads + head] = sum * scale;
    });
  }
}

}  // namespace bac
