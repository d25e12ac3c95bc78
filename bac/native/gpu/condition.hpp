// Phases that encode the observed condition tokens and fold them into the cross-attention of every layer (see bac.folding).
// Their weights are used once, and read from global memory.
#pragma once
#include "block.hpp"

namespace bac {

BAC_FN float mish(float x) { return x * tanhf(x > 20.0f ? x : log1pf(expf(x))); }

BAC_FN void condition_hidden(const Block& b) {
  const Params& p = b.p;
  const int width = p.width, begin = b.begin(4 * width), numbers = p.observation_width;
  b.team.each_item(p.observed * width, [&](int i) {
    const int token = i / width, column = i % width;
    float total = p.cond_position[i];
    for (int k = 0; k < numbers; ++k) total += p.cond_embed[column * numbers + k] * p.observation[token * numbers + k];
    b.normed[i] = total;
  });
  b.team.sync();
  product(
      b, b.own(4 * width), width, p.observed, [&](int row) { return p.cond_up + (long long)(begin + row) * width; },
      [&](int token, int k) { return pair_at(b.normed + token * width + k); },
      [&](int row, int token, float sum) { p.wide[token * 4 * width + begin + row] = mish(sum + p.cond_up_bias[begin + row]); });
}

BAC_FN void condition_tokens(const Block& b) {
  const Params& p = b.p;
  const int width = p.width, begin = b.begin(width);
  product(
      b, b.own(width), 4 * width, p.observed, [&](int row) { return p.cond_down + (long long)(begin + row) * 4 * width; },
      [&](int token, int k) { return remote2(p.wide + token * 4 * width + k); },
      [&](int row, int token, float sum) { p.token[token * width + begin + row] = sum + p.cond_down_bias[begin + row]; });
}

// Keys and values of all layers, [L][2 D][kTile].
BAC_FN void condition_keys_values(const Block& b) {
  const Params& p = b.p;
  const int width = p.width, rows = p.layers * 2 * width, begin = b.begin(rows);
  product(
      b, b.own(rows), width, p.observed, [&](int row) { return p.key_value + (long long)(begin + row) * width; },
      [&](int token, int k) { return remote2(p.token + token * width + k); },
      [&](int row, int token, float sum) { p.projected[(begin + row) * kTile + token] = sum + p.key_value_bias[begin + row]; });
}

// key = Wq^T k / sqrt(D / H), bias = bq . k / sqrt(D / H), value = Wo v, for each layer, head and token.
BAC_FN void condition_fold(const Block& b) {
  const Params& p = b.p;
  const int width = p.width, heads = p.heads, each = width / heads, total = p.layers * heads * 2 * width, begin = b.begin(total);
  const float scale = 1.0f / sqrtf(float(each));
  b.team.each_item(b.own(total), [&](int item) {
    const int i = begin + item, column = i % width, of_value = i / width % 2, head = i / (2 * width) % heads, layer = i / (2 * width * heads);
    const float* fold = (of_value ? p.fold_out : p.fold_query) + (long long)(layer * heads + head) * each * width + column;
    const float* projected = p.projected + (long long)((layer * 2 + of_value) * width + head * each) * kTile;
    float sum[kTile];
    BAC_UNROLL for (int t = 0; t < kTile; ++t) sum[t] = 0;
    for (int j = 0; j < each; ++j) {
      const float weight = fold[j * width];
      BAC_UNROLL for (int t = 0; t < kTile; ++t) sum[t] += t < p.observed ? weight * remote(projected + j * kTile + t) : 0.0f;
    }
    BAC_UNROLL for (int t = 0; t < kTile; ++t) {
      if (t >= p.observed) continue;
      float* table = (of_value ? p.value : p.key) + (long long)((layer * p.observed + t) * heads + head) * width;
      table[column] = of_value ? sum[t] : sum[t] * scale;
    }
  });
  const int biases = p.layers * p.observed * heads, first = b.begin(biases);
  b.team.each_item(b.own(biases), [&](int item) {
    const int i = first + item, head = i % heads, token = i / heads % p.observed, layer = i / heads / p.observed;
    float sum = 0;
    for (int j = 0; j < each; ++j)
      sum += remote(p.projected + (long long)(layer * 2 * width + head * each + j) * kTile + token) * p.query_bias[layer * width + head * each + j];
    p.key_bias[i] = sum * scale;
  });
}

}  // namespace bac
