// What thread blocks do between two barriers of the grid, for the blocks of the denoiser.
//
// Every thread block has the whole residual stream in shared memory and computes again what is small: norms, attention, the
// folded cross-attention, the sampler. Divided among them are the rows of the large matrices, whose results they exchange.
#pragma once
#include "block.hpp"

namespace bac {

BAC_FN float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// Stores one number of a branch's output, and its slope per step where that is needed later.
BAC_FN void keep(const Params& p, const Segment& segment, int token, int column, float value) {
  const int at = (segment.block * p.tokens + token) * p.width + column;
  if (segment.gap) p.slopes[at] = (value - remote(p.stored + at)) * (1.0f / float(segment.gap));
  p.stored[at] = value;
}

// Where the trajectory is known, it is that. All that writes it waits for the thread block afterwards.
BAC_FN void impose(const Block& b) {
  if (!b.p.given) return;
  b.team.each_item(b.p.tokens * b.p.numbers, [&](int i) {
    if (b.p.given[i]) b.trajectory[i] = b.p.known[i];
  });
}

// x = position + embedding of the trajectory.
BAC_FN void embed(const Block& b) {
  const Params& p = b.p;
  impose(b);
  b.team.sync();
  b.team.each_item(p.tokens * p.width, [&](int i) {
    const int token = i / p.width, column = i % p.width;
    float total = p.position[i];
    for (int k = 0; k < p.numbers; ++k) total += p.embed[k * p.width + column] * b.trajectory[token * p.numbers + k];
    b.x[i] = total;
  });
}

// x += stored outputs of the blocks first ... stop - 1.
BAC_FN void add_stored(const Block& b, int first, int stop, int step) {
  const Params& p = b.p;
  const int size = p.tokens * p.width;
  const float* ahead = p.ahead ? p.ahead + step * 3 * p.layers : nullptr;
  b.team.sync();
  b.team.each_item(size / 4, [&](int i) {
    Quad total = quad_at(b.x + 4 * i);
    for (int block = first; block < stop; ++block) {
      const Quad value = remote4(p.stored + block * size + 4 * i);
      total.x += value.x, total.y += value.y, total.z += value.z, total.w += value.w;
      if (!ahead || ahead[block] == 0.0f) continue;
      const Quad slope = remote4(p.slopes + block * size + 4 * i);
      total.x += slope.x * ahead[block], total.y += slope.y * ahead[block];
      total.z += slope.z * ahead[block], total.w += slope.w * ahead[block];
    }
    *reinterpret_cast<Quad*>(b.x + 4 * i) = total;
  });
}

template <class W>
BAC_FN void queries_keys_values(const Block& b, const Weights<W>& weights, int layer) {
  const Params& p = b.p;
  const int width = p.width, begin = b.begin(3 * width);
  const float* bias = p.bias + layer * 9 * width + begin;
  normalise(b, p.norms + (layer * 3) * 2 * width);
  product(
      b, weights.qkv, width, p.tokens, [&](int row) { return weights.row(layer, 0, row, width); },
      [&](int token, int k) { return pair_at(b.normed + token * width + k); },
      [&](int row, int token, float sum) { p.wide[token * 3 * width + begin + row] = sum + bias[row]; });
}

// Softmax(q k^T / sqrt(D / H) + mask) v of all heads into `normed`.
BAC_FN void attend(const Block& b) {
  const Params& p = b.p;
  const int width = p.width, tokens = p.tokens, each = width / p.heads, row = b.at.row;
  b.team.each_item(tokens * 3 * width / 4, [&](int i) {
    const int token = 4 * i / (3 * width), column = 4 * i % (3 * width);
    *reinterpret_cast<Quad*>(b.wide + token * row + column) = remote4(p.wide + 4 * i);
  });
  b.team.sync();
  const float scale = 1.0f / sqrtf(float(each));
  const int pairs = p.causal ? tokens * (tokens + 1) / 2 : tokens * tokens;
  b.team.each_item(p.heads * pairs, [&](int i) {
    const int head = i / pairs, pair = i % pairs;
    int token = pair / tokens, other = pair % tokens;
    if (p.causal) {  // pairs with other <= token, row by row
      token = int((sqrtf(8.0f * float(pair) + 1.0f) - 1.0f) * 0.5f);
      other = pair - token * (token + 1) / 2;
    }
    const float *q = b.wide + token * row + head * each, *k = b.wide + other * row + width + head * each;
    float total = 0;
    for (int j = 0; j < each; j += 4) {
      const Quad u = quad_at(q + j), v = quad_at(k + j);
      total += u.x * v.x + u.y * v.y + u.z * v.z + u.w * v.w;
    }
    b.scores[(head * kTile + token) * kTile + other] = total * scale + p.self_mask[token * tokens + other];
  });
  b.team.sync();
  b.team.each_item(p.heads * tokens, [&](int i) {
    const int token = i % tokens, seen = p.causal ? token + 1 : tokens;
    float* score = b.scores + (i / tokens * kTile + token) * kTile;
    float weight[kTile], top = score[0], total = 0;
    BAC_UNROLL for (int j = 1; j < kTile; ++j) top = j < seen ? fmaxf(top, score[j]) : top;
    BAC_UNROLL for (int j = 0; j < kTile; ++j) total += weight[j] = j < seen ? expf(score[j] - top) : 0.0f;
    BAC_UNROLL for (int j = 0; j < kTile; ++j) score[j] = weight[j] / total;
  });
  b.team.sync();
  const int parts = most(1, kThreads / width);
  b.team.each_item(width * parts, [&](int i) {
    const int column = i % width, head = column / each;
    float v[kTile];
    BAC_UNROLL for (int j = 0; j < kTile; ++j) v[j] = j < tokens ? b.wide[j * row + 2 * width + column] : 0.0f;
    for (int token = i / width; token < tokens; token += parts) {
      const float* weight = b.scores + (head * kTile + token) * kTile;
      float total = 0;
      BAC_UNROLL for (int j = 0; j < kTile; ++j) total += weight[j] * v[j];
      b.normed[token * width + column] = total;
    }
  });
  b.team.sync();
}

template <class W>
BAC_FN void attention_output(const Block& b, const Weights<W>& weights, int layer, const Segment& segment) {
  const Params& p = b.p;
  const int width = p.width, begin = b.begin(width);
  const float* bias = p.bias + layer * 9 * width + 3 * width + begin;
  attend(b);
  product(
      b, weights.out, width, p.tokens, [&](int row) { return weights.row(layer, weights.qkv, row, width); },
      [&](int token, int k) { return pair_at(b.normed + token * width + k); },
      [&](int row, int token, float sum) { keep(p, segment, token, begin + row, sum + bias[row]); });
}

// The folded cross-attention. Every thread block adds all of it to its residual stream; it is stored only to be reused.
BAC_FN void cross_attention(const Block& b, int layer, int step, const Segment& segment) {
  const Params& p = b.p;
  const int width = p.width, heads = p.heads, count = 1 + p.observed, columns = heads * count;
  const int of_time = (layer * p.steps + step) * heads, of_observed = layer * p.observed * heads - heads;  // rows of the tables
  // Columns are ordered (token, head). Keys and values come while the norm is computed.
  float *keys = b.wide, *values = b.wide + columns * width;
  b.team.each_item(columns * width / 4, [&](int i) {
    const int column = 4 * i / width, at = 4 * i % width;
    fetch(keys + 4 * i, (column < heads ? p.time_key + (of_time + column) * width : p.key + (of_observed + column) * width) + at);
    fetch(values + 4 * i, (column < heads ? p.time_value + (of_time + column) * width : p.value + (of_observed + column) * width) + at);
  });
  normalise(b, p.norms + (layer * 3 + 1) * 2 * width, [] { arrived(); });
  product(
      b, columns, width, p.tokens, [&](int column) { return keys + column * width; },
      [&](int token, int k) { return pair_at(b.normed + token * width + k); },
      [&](int column, int token, float sum) {
        const float bias = column < heads ? p.time_bias[of_time + column] : remote(p.key_bias + of_observed + column);
        b.scores[token * columns + column] = sum + bias + p.cross_mask[token * count + column / heads];
      });
  b.team.each_item(p.tokens * heads, [&](int i) {
    float* score = b.scores + i / heads * columns + i % heads;
    float top = score[0], total = 0;
    for (int j = 1; j < count; ++j) top = fmaxf(top, score[j * heads]);
    for (int j = 0; j < count; ++j) total += score[j * heads] = expf(score[j * heads] - top);
    for (int j = 0; j < count; ++j) score[j * heads] /= total;
  });
  b.team.sync();
  constexpr int kSome = (kTile + 3) / 4;  // tokens of an item, which has two columns
  const int begin = b.begin(width), end = begin + b.own(width);
  b.team.each_item(width / 2 * 4, [&](int i) {
    const int column = i % (width / 2) * 2, token = i / (width / 2) * kSome;
    Pair total[kSome];
    BAC_UNROLL for (int t = 0; t < kSome; ++t) total[t] = pair_at(p.cross_bias + layer * width + column);
    for (int c = 0; c < columns; ++c) {
      const Pair value = pair_at(values + c * width + column);
      BAC_UNROLL for (int t = 0; t < kSome; ++t) {
        const float weight = b.scores[least(token + t, p.tokens - 1) * columns + c];
        total[t].x += weight * value.x, total[t].y += weight * value.y;
      }
    }
    BAC_UNROLL for (int t = 0; t < kSome; ++t) {
      if (token + t >= p.tokens) continue;
      float* x = b.x + (token + t) * width + column;
      x[0] += total[t].x, x[1] += total[t].y;
      if (!segment.store) continue;
      if (column >= begin && column < end) keep(p, segment, token + t, column, total[t].x);
      if (column + 1 >= begin && column + 1 < end) keep(p, segment, token + t, column + 1, total[t].y);
    }
  });
}

template <class W>
BAC_FN void hidden_units(const Block& b, const Weights<W>& weights, int layer) {
  const Params& p = b.p;
  const int width = p.width, begin = b.begin(4 * width);
  const float* bias = p.bias + layer * 9 * width + 4 * width + begin;
  normalise(b, p.norms + (layer * 3 + 2) * 2 * width);
  product(
      b, weights.up, width, p.tokens, [&](int row) { return weights.row(layer, weights.qkv + weights.out, row, width); },
      [&](int token, int k) { return pair_at(b.normed + token * width + k); },
      [&](int row, int token, float sum) { p.wide[token * 4 * width + begin + row] = gelu(sum + bias[row]); });
}

template <class W>
BAC_FN void feed_forward_output(const Block& b, const Weights<W>& weights, int layer, const Segment& segment) {
  const Params& p = b.p;
  const int width = p.width, begin = b.begin(width);
  const float* bias = p.bias + layer * 9 * width + 8 * width + begin;
  product(
      b, weights.down, 4 * width, p.tokens, [&](int row) { return weights.row(layer, weights.qkv + weights.out + weights.up, row, 4 * width); },
      [&](int token, int k) { return remote2(p.wide + token * 4 * width + k); },
      [&](int row, int token, float sum) { keep(p, segment, token, begin + row, sum + bias[row]); });
}

// Final norm, head, and the sampler's update of the trajectory (see bac.solver).
BAC_FN void read_out(const Block& b, int step) {
  const Params& p = b.p;
  const SolverRow solve = p.solver[step];
  const int drawn = p.noise_row[step];
  const float* noise = drawn < 0 ? nullptr : p.noise + (long long)drawn * p.noise_stride;
  normalise(b, p.final_norm);
  product(
      b, p.numbers, p.width, p.tokens, [&](int row) { return p.head + row * p.width; },
      [&](int token, int k) { return pair_at(b.normed + token * p.width + k); },
      [&](int row, int token, float sum) {
        const int at = token * p.numbers + row;
        const float x = b.trajectory[at], out = sum + p.head_bias[row];
        const float estimate = solve.x_gain * x + solve.m_gain * out;
        const float clean = estimate < -p.clip ? -p.clip : estimate > p.clip ? p.clip : estimate;  // stays what it is if not a number
        float next = solve.to_x * x + solve.to_x0 * clean + solve.to_m * out;
        if (solve.to_last != 0.0f && step > 0) next += solve.to_last * b.last[at];
        if (noise) next += solve.sigma * noise[at];
        b.last[at] = clean;
        b.trajectory[at] = next;
      });
}

}  // namespace bac
