// Phases that encode the observed condition tokens and fold them into the cross-attention of every layer (see bac.folding).
// Their weights are used once, and read from global memory.
#pragma once
#include "block.hpp"

namespace bac {

BAC_FN float mish(float x) { return x * tanhf(x > 20.0f ? x : log1pf(expf(x))); }

BAC_FN void condition_hidden(const Block& b, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(4 * width), numbers = p.observation_width;
  b.team.each_item(b.s.observed * width, [&](int i) {
    const int token = i / width, column = i % width;
    float total = p.cond_position[i];
    for (int k = 0; k < numbers; ++k) total += p.cond_embed[column * numbers + k] * p.observation[token * numbers + k];
    reinterpret_cast<float*>(b.normed + column * kStride)[place(token)] = total;
  });
  b.team.sync();
  product(
      b, b.own(4 * width), b.most_rows(4 * width), width, [&](int row) { return p.cond_up + (long long)(begin + row) * width; }, b.normed,
      [&](int row, int group, const Quad& q) {
        const float bias = p.cond_up_bias[begin + row];
        send(p.wide + group * 4 * width + begin + row, mish(q.x + bias), mish(q.y + bias), mish(q.z + bias), flag);
      });
}

BAC_FN void condition_tokens(const Block& b, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(width);
  collect(b, p.wide, 4 * width, flag - 1, b.normed);
  product(
      b, b.own(width), b.most_rows(width), 4 * width, [&](int row) { return p.cond_down + (long long)(begin + row) * 4 * width; }, b.normed,
      [&](int row, int group, const Quad& q) {
        const float bias = p.cond_down_bias[begin + row];
        send(p.token + group * width + begin + row, q.x + bias, q.y + bias, q.z + bias, flag);
      });
}

// Keys and values of all layers.
BAC_FN void condition_keys_values(const Block& b, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, rows = b.s.layers * 2 * width, begin = b.begin(rows);
  collect(b, p.token, width, flag - 1, b.normed);
  product(
      b, b.own(rows), b.most_rows(rows), width, [&](int row) { return p.key_value + (long long)(begin + row) * width; }, b.normed,
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
      b.normed[j * kStride + group] = quad[0];
    });
    b.team.sync();
    const float* fold = (of_value ? p.fold_out : p.fold_query) + (long long)(layer * heads + head) * each * width;
    b.team.each_item(width, [&](int column) {
      if (part * width + column < begin || part * width + column >= end) return;
      Quad sum[kGroups];
      BAC_UNROLL for (int g = 0; g < kGroups; ++g) sum[g] = Quad{0, 0, 0, 0};
      for (int j = 0; j < each; ++j) {
        const float weight = fold[j * width + column];
        BAC_UNROLL for (int g = 0; g < kGroups; ++g) add(sum[g], weight, b.normed[j * kStride + g]);
      }
      BAC_UNROLL for (int g = 0; g < kGroups; ++g) {
        const float sums[3] = {sum[g].x, sum[g].y, sum[g].z};
        BAC_UNROLL for (int t = 0; t < 3; ++t) {
          if (3 * g + t >= observed) continue;
          float* table = (of_value ? p.value : p.key) + (long long)((layer * observed + 3 * g + t) * heads + head) * width;
          table[column] = of_value ? sums[t] : sums[t] * scale;
        }
      }
    });
    if (of_value || part * width < begin) continue;
    b.team.each_item(observed, [&](int token) {
      float sum = 0;
      for (int j = 0; j < each; ++j)
        sum += reinterpret_cast<const float*>(b.normed + j * kStride)[place(token)] * p.query_bias[layer * width + head * each + j];
      p.key_bias[(layer * observed + token) * heads + head] = sum * scale;
    });
  }
}

}  // namespace bac
