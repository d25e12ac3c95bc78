// What lies between the matrix products of a denoising step, fused: each kernel does for a row what PyTorch needs many for.
//
// The products are PyTorch's. Every kernel is one warp for each item (a token of a sample, or a head of one) and needs no
// other thread, so any batch fits. Arithmetic is in float; what products read and write may be in bfloat16.
#pragma once
#include "machine.hpp"

namespace bac {

#if defined(BAC_FUSED_WIDTH)
constexpr int kColumns = (BAC_FUSED_WIDTH + kLanes - 1) / kLanes;    // of a lane, in a row
constexpr int kHeadColumns = (BAC_FUSED_EACH + kLanes - 1) / kLanes;  // of a lane, in a head
#else
constexpr int kColumns = 32, kHeadColumns = 8;
#endif
constexpr int kKeys = 8;       // whose scores are summed at once
constexpr int kChunk = BAC_FUSED_UNITS;  // hidden units of an item
constexpr float kLowest = -3.4e38f;

// Scheduler's row of the solver's table (see bac.solver).
struct Row {
  float x_gain, m_gain, to_x, to_x0, to_last, to_m, sigma, clip;
};

// Arguments of all kernels; bac/native/gpu/structs.py holds the same fields in the same order. Each kernel reads some, and
// a pointer may be null where that is said. B samples of T tokens, M = B T rows, width D, H heads, E numbers of a token.
struct Fused {
  float* x;             // [M][D] residual stream
  const void* out;      // [M][D] output of a product that is added to it, or null
  const float* bias;    // [D] of that product, or null
  const float* total;   // [M][D] sum of reused outputs that is added as well, or null
  const float *gain, *shift;  // [D] of the norm of the result
  void* n;              // [M][D] that norm

  const void* qkv;      // [M][3][D]
  const float* mask;    // [T][T] or null
  void* y;              // [M][D]

  const float *key, *score_bias, *value;  // [B][H][S][D], [M][H][S], [B][H][S][D]
  const float *time_key, *time_bias, *time_value;  // [H][D], [H], [H][D] of the first condition token, or null: it is in `key`
  const float* time_mask;  // [T][S], whose first column is the time token's; read only with these
  const float* out_bias;   // [D] of the cross-attention
  float* branch;           // [M][D] its output alone, or null
  const float *next_gain, *next_shift;  // [D] of the norm that follows it, or null

  void* hidden;            // [M][4 D], in place
  const float* hidden_bias;  // [4 D]

  const float *head, *head_bias;  // [E][D], [E]; null before the first step
  const float* trajectory;        // [M][E]
  const float* last;              // [M][E] estimate of the step before, or null
  const float* noise;             // [B][noise_stride] or null
  const float* known;             // [M][E], or null
  const unsigned char* given;     // [M][E] where the trajectory is known; read only with `known`
  float *next, *estimate;         // [M][E] the trajectory, and the estimate of the clean one
  const float *embed, *position;  // [E][D], [T][D] with the bias of the embedding; null after the last step

  Row solver;
  float eps, next_eps, scale;     // of the norms; of the self-attention's scores
  int items;                      // warps
  int tokens, width, heads, condition, units, numbers, noise_stride;  // T, D, H, S, 4 D, E
  int brief_in, brief_out;        // what is read and what is written for products is in bfloat16, else float
};

BAC_FN int width_of(const Fused& p) {
#if defined(BAC_FUSED_WIDTH)
  return BAC_FUSED_WIDTH;
#else
  return p.width;
#endif
}

BAC_FN unsigned bits_of(float x) {
#if defined(__CUDACC__)
  return __float_as_uint(x);
#else
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}
BAC_FN float of_bits(unsigned bits) {
#if defined(__CUDACC__)
  return __uint_as_float(bits);
#else
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
#endif
}

BAC_FN float load(const void* from, long long at, int brief) {
  if (brief) return of_bits(unsigned(static_cast<const unsigned short*>(from)[at]) << 16);
  return static_cast<const float*>(from)[at];
}
BAC_FN void store(void* to, long long at, int brief, float x) {
  if (!brief) {
    static_cast<float*>(to)[at] = x;
    return;
  }
  const unsigned bits = bits_of(x);  // to the nearest, of two the even one
  static_cast<unsigned short*>(to)[at] = x == x ? static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16) : 0x7fc0;
}

// f(lane, i, column) for the columns of each lane: lane, lane + 32, ...
template <int N, class F>
BAC_FN void each_column(int width, F f) {
  each_lane([&](int lane) {
    BAC_UNROLL for (int i = 0; i < N; ++i)
      if (lane + i * kLanes < width) f(lane, i, lane + i * kLanes);
  });
}

// Each of N numbers of a lane, summed over all lanes, in every lane.
template <int N>
BAC_FN void sum_all(PerLane<float[N]>& value) {
  BAC_UNROLL for (int distance = kLanes / 2; distance > 0; distance /= 2) {
#if defined(__CUDACC__)
    BAC_UNROLL for (int i = 0; i < N; ++i) value[0][i] += exchange(value[0][i], distance);
#else
    const PerLane<float[N]> before = value;
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < N; ++i) value[lane][i] += before.item[lane ^ distance][i];
#endif
  }
}

using Columns = PerLane<float[kColumns]>;

// n = LayerNorm(x); emit(lane, i, column, n).
template <class Emit>
BAC_FN void norm(Columns& x, int width, const float* gain, const float* shift, float eps, Emit emit) {
  PerLane<float> sum;
  each_lane([&](int lane) { sum[lane] = 0; });
  each_column<kColumns>(width, [&](int lane, int i, int) { sum[lane] += x[lane][i]; });
  sum_lanes(sum);
  const float mean = sum.item[0] / float(width);
  each_lane([&](int lane) { sum[lane] = 0; });
  each_column<kColumns>(width, [&](int lane, int i, int) { sum[lane] += (x[lane][i] - mean) * (x[lane][i] - mean); });
  sum_lanes(sum);
  const float by = inverse_root(sum.item[0] / float(width) + eps);
  each_column<kColumns>(width, [&](int lane, int i, int c) { emit(lane, i, c, (x[lane][i] - mean) * by * gain[c] + shift[c]); });
}

// sum += softmax over `count` keys of (query . key(j) + add(j)) times value(j); key(j, column), value(j, column).
template <int N, class Key, class Value, class Add>
BAC_FN void mix(PerLane<float[N]>& sum, PerLane<float[N]>& query, int width, int count, Key key, Value value, Add add) {
  PerLane<float[N]> part;
  each_lane([&](int lane) { BAC_UNROLL for (int i = 0; i < N; ++i) part[lane][i] = 0; });
  float top = kLowest, total = 0;  // the same in every lane
  for (int first = 0; first < count; first += kKeys) {
    PerLane<float[kKeys]> score;
    each_lane([&](int lane) { BAC_UNROLL for (int k = 0; k < kKeys; ++k) score[lane][k] = 0; });
    each_column<N>(width, [&](int lane, int i, int c) {
      BAC_UNROLL for (int k = 0; k < kKeys; ++k)
        if (first + k < count) score[lane][k] += query[lane][i] * key(first + k, c);
    });
    sum_all(score);
    float weight[kKeys], highest = top;
    BAC_UNROLL for (int k = 0; k < kKeys; ++k) {
      weight[k] = first + k < count ? score.item[0][k] + add(first + k) : kLowest;
      highest = weight[k] > highest ? weight[k] : highest;
    }
    const float scale = power(top - highest);
    top = highest, total *= scale;
    BAC_UNROLL for (int k = 0; k < kKeys; ++k) {
      weight[k] = first + k < count ? power(weight[k] - top) : 0.0f;
      total += weight[k];
    }
    each_column<N>(width, [&](int lane, int i, int c) {
      float mixed = part[lane][i] * scale;
      BAC_UNROLL for (int k = 0; k < kKeys; ++k)
        if (first + k < count) mixed += weight[k] * value(first + k, c);
      part[lane][i] = mixed;
    });
  }
  const float by = inverse(total);
  each_column<N>(width, [&](int lane, int i, int) { sum[lane][i] += part[lane][i] * by; });
}

// A row of the residual stream with what is still to be added to it.
BAC_FN void residual(const Fused& p, int row, Columns& x) {
  const int width = width_of(p);
  const long long at = static_cast<long long>(row) * width;
  each_column<kColumns>(width, [&](int lane, int i, int c) {
    float value = p.x[at + c];
    if (p.out) value += load(p.out, at + c, p.brief_in) + (p.bias ? p.bias[c] : 0.0f);
    if (p.total) value += p.total[at + c];
    x[lane][i] = value;
  });
}

// x += out + bias + total; n = LayerNorm(x). An item is a row.
BAC_FN void add_norm(const Fused& p, int row) {
  const int width = width_of(p);
  const long long at = static_cast<long long>(row) * width;
  Columns x;
  residual(p, row, x);
  if (p.out || p.total) each_column<kColumns>(width, [&](int lane, int i, int c) { p.x[at + c] = x[lane][i]; });
  norm(x, width, p.gain, p.shift, p.eps, [&](int, int, int c, float n) { store(p.n, at + c, p.brief_out, n); });
}

// Self-attention. An item is a head of a row.
BAC_FN void attend(const Fused& p, int item) {
  const int width = width_of(p), each = width / p.heads;
  const int row = item / p.heads, token = row % p.tokens;
  const long long head = static_cast<long long>(item % p.heads) * each;
  const long long own = 3ll * row * width + head, sample = 3ll * (row - token) * width + head;
  PerLane<float[kHeadColumns]> query, sum;
  each_column<kHeadColumns>(each, [&](int lane, int i, int c) {
    query[lane][i] = load(p.qkv, own + c, p.brief_in) * p.scale;
    sum[lane][i] = 0;
  });
  mix(
      sum, query, each, p.tokens,
      [&](int j, int c) { return load(p.qkv, sample + (3ll * j + 1) * width + c, p.brief_in); },
      [&](int j, int c) { return load(p.qkv, sample + (3ll * j + 2) * width + c, p.brief_in); },
      [&](int j) { return p.mask ? p.mask[token * p.tokens + j] : 0.0f; });
  each_column<kHeadColumns>(each, [&](int lane, int i, int c) {
    store(p.y, static_cast<long long>(row) * width + head + c, p.brief_out, sum[lane][i]);
  });
}

// x += out + bias + total, then cross-attention of folded keys and values (see bac.folding), and the norm that follows it. An
// item is a row.
BAC_FN void cross(const Fused& p, int row) {
  const int width = width_of(p), token = row % p.tokens, count = p.condition;
  const long long at = static_cast<long long>(row) * width;
  Columns x, n, sum;
  residual(p, row, x);
  norm(x, width, p.gain, p.shift, p.eps, [&](int lane, int i, int c, float value) {
    n[lane][i] = value;
    sum[lane][i] = p.out_bias[c];
  });
  for (int head = 0; head < p.heads; ++head) {
    const long long keys = (static_cast<long long>(row / p.tokens) * p.heads + head) * count;
    const float* bias = p.score_bias + (static_cast<long long>(row) * p.heads + head) * count;
    mix(
        sum, n, width, count,
        [&](int j, int c) { return p.time_key && j == 0 ? p.time_key[head * width + c] : p.key[(keys + j) * width + c]; },
        [&](int j, int c) { return p.time_key && j == 0 ? p.time_value[head * width + c] : p.value[(keys + j) * width + c]; },
        [&](int j) { return p.time_key && j == 0 ? p.time_bias[head] + p.time_mask[token * count] : bias[j]; });
  }
  each_column<kColumns>(width, [&](int lane, int i, int c) {
    if (p.branch) p.branch[at + c] = sum[lane][i];
    p.x[at + c] = x[lane][i] += sum[lane][i];
  });
  if (p.next_gain)
    norm(x, width, p.next_gain, p.next_shift, p.next_eps, [&](int, int, int c, float value) { store(p.n, at + c, p.brief_out, value); });
}

// hidden = gelu(hidden + bias). An item is a part of a row.
BAC_FN void gelu(const Fused& p, int item) {
  const int parts = (p.units + kChunk - 1) / kChunk, first = item % parts * kChunk;
  const long long at = static_cast<long long>(item / parts) * p.units + first;
  each_column<kChunk / kLanes>(least(kChunk, p.units - first), [&](int, int, int c) {
    const float value = load(p.hidden, at + c, p.brief_in) + p.hidden_bias[first + c];
    store(p.hidden, at + c, p.brief_in, 0.5f * value * (1.0f + erff(value * 0.70710678118654752f)));
  });
}

// From one step to the next: reads the output off, updates the trajectory as the scheduler does, imposes what is known of it,
// embeds it, and takes the first norm. An item is a row.
BAC_FN void turn(const Fused& p, int row) {
  const int width = width_of(p), token = row % p.tokens, numbers = p.numbers;
  const long long at = static_cast<long long>(row) * width, own = static_cast<long long>(row) * numbers;
  const long long drawn = static_cast<long long>(row / p.tokens) * p.noise_stride + token * numbers;
  const Row& s = p.solver;
  Columns x, n;
  if (p.head) {
    residual(p, row, x);
    norm(x, width, p.gain, p.shift, p.eps, [&](int lane, int i, int, float value) { n[lane][i] = value; });
  }
  if (p.position) each_column<kColumns>(width, [&](int lane, int i, int c) { x[lane][i] = p.position[token * width + c]; });
  for (int e = 0; e < numbers; ++e) {
    float value = p.trajectory[own + e], clean = 0;
    if (p.head) {
      PerLane<float> sum;
      each_lane([&](int lane) { sum[lane] = 0; });
      each_column<kColumns>(width, [&](int lane, int i, int c) { sum[lane] += n[lane][i] * p.head[e * width + c]; });
      sum_lanes(sum);
      const float output = sum.item[0] + p.head_bias[e];
      clean = s.x_gain * value + s.m_gain * output;
      clean = clean > s.clip ? s.clip : clean < -s.clip ? -s.clip : clean;
      value = s.to_x * value + s.to_x0 * clean + s.to_m * output;
      if (p.last) value += s.to_last * p.last[own + e];
      if (p.noise) value += s.sigma * p.noise[drawn + e];
    }
    if (p.known && p.given[own + e]) value = p.known[own + e];
    each_lane([&](int lane) {
      if (lane) return;
      p.next[own + e] = value;
      if (p.estimate) p.estimate[own + e] = clean;
    });
    if (p.position) each_column<kColumns>(width, [&](int lane, int i, int c) { x[lane][i] += value * p.embed[e * width + c]; });
  }
  if (!p.position) return;
  each_column<kColumns>(width, [&](int lane, int i, int c) { p.x[at + c] = x[lane][i]; });
  if (p.next_gain)
    norm(x, width, p.next_gain, p.next_shift, p.next_eps, [&](int, int, int c, float value) { store(p.n, at + c, p.brief_out, value); });
}

}  // namespace bac
