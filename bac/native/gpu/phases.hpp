// What thread blocks do between two exchanges, for the blocks of the denoiser.
//
// Every thread block has the whole residual stream in shared memory and computes again what is small: norms, attention, the
// folded cross-attention, the sampler. Divided among them are the rows of the large matrices, whose results they exchange.
#pragma once
#include "block.hpp"

namespace bac {

BAC_FN float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// The number of a block among those that exchange their outputs: self-attentions and feed-forward blocks.
BAC_FN int exchanged(int block) { return block / 3 * 2 + block % 3 / 2; }

// Outputs of a block [G][D]; those of a cross-attention are the thread block's own.
BAC_FN Quad* output_of(const Block& b, Quad* exchange, Quad* own, int block) {
  const int size = kGroups * b.s.width;
  return block % 3 == 1 ? own + ((long long)b.index * b.s.layers + block / 3) * size : exchange + exchanged(block) * size;
}

// Stores an output, for all or for this thread block, and its slope per step where that is needed later.
BAC_FN void keep(const Block& b, const Segment& segment, int at, const Quad& q, unsigned flag) {
  Quad* stored = output_of(b, b.p.stored, b.p.cross, segment.block) + at;
  if (b.s.slopes && segment.gap) {
    const Quad before = remote(stored);
    const float rate = 1.0f / float(segment.gap);
    send(output_of(b, b.p.slopes, b.p.cross_slopes, segment.block) + at, (q.x - before.x) * rate, (q.y - before.y) * rate, (q.z - before.z) * rate, flag);
  }
  send(stored, q.x, q.y, q.z, flag);
}

// Where the trajectory is known, it is that. All that writes it waits for the thread block afterwards.
BAC_FN void impose(const Block& b) {
  if (!b.p.given) return;
  b.team.each_item(b.s.tokens * b.s.numbers, [&](int i) {
    if (b.p.given[i]) b.trajectory[i] = b.p.known[i];
  });
}

// Starts to copy a step's row of the plan, which is read at the next step.
BAC_FN void fetch_plan(const Block& b, int step) {
  b.team.each_item(b.at.row, [&](int i) { fetch(b.plan + step % 2 * b.at.row + i, b.p.plan + step * b.at.row + i); });
}

// x = position + embedding of the trajectory. The plan of the next step and the noise of this one are on their way then.
BAC_FN void embed(const Block& b, int step) {
  const Params& p = b.p;
  const int width = b.s.width, numbers = b.s.numbers, drawn = b.step(step).noise;
  impose(b);
  b.team.sync();
  fetch_plan(b, step + 1);
  if (drawn >= 0) b.team.each_item(b.s.tokens * numbers, [&](int i) { fetch(b.noise + i, p.noise + (long long)drawn * p.noise_stride + i); });
  b.team.each_item(width * kGroups, [&](int i) {
    const int column = i % width, group = i / width;
    Quad total = p.position[i];
    for (int e = 0; e < numbers; ++e) {
      const float weight = p.embed[e * width + column];
      const auto at = [&](int t) { return b.trajectory[least(3 * group + t, b.s.tokens - 1) * numbers + e]; };
      add(total, weight, Quad{at(0), at(1), at(2), 0});
    }
    b.x[column * kStride + group] = total;
  });
}

// x += the output just sent for block `segment.start - 1` (`sent`: with that flag), and the stored ones of the segment.
BAC_FN void add_stored(const Block& b, const Segment& segment, int step, bool sent, unsigned flag) {
  constexpr int kAtOnce = 2, kMine = 2;  // blocks, and quads of a thread, that are on their way
  const Params& p = b.p;
  const int width = b.s.width, size = kGroups * width;
  const float* ahead = b.s.slopes ? p.ahead + step * 3 * b.s.layers : nullptr;
  if (!sent) b.team.sync();  // a cross-attention may have added to x just now
  b.team.each_batch<kMine>(size, [&](const Items& index) {
    Quad total[kMine], arrived[kMine];
    BAC_UNROLL for (int m = 0; m < kMine; ++m) total[m] = segment.store & 4 && index(m) < size ? b.memo[index(m)] : Quad{0, 0, 0, 0};
    for (int block = segment.start; !(segment.store & 4) && block < segment.stop; block += kAtOnce) {
      Quad value[kAtOnce][kMine];
      BAC_UNROLL for (int j = 0; j < kAtOnce; ++j) BAC_UNROLL for (int m = 0; m < kMine; ++m)
        if (block + j < segment.stop && index(m) < size) value[j][m] = remote(output_of(b, p.stored, p.cross, block + j) + index(m));
      BAC_UNROLL for (int j = 0; j < kAtOnce; ++j) BAC_UNROLL for (int m = 0; m < kMine; ++m) {
        if (block + j >= segment.stop || index(m) >= size) continue;
        add(total[m], value[j][m]);
        if (!ahead || ahead[block + j] == 0.0f) continue;
        Quad slope[1];
        receive(slope, flag_of(value[j][m]), [&](int) { return output_of(b, p.slopes, p.cross_slopes, block + j) + index(m); });
        add(total[m], ahead[block + j], slope[0]);
      }
    }
    if (sent) receive(arrived, flag, [&](int m) { return index(m) < size ? p.stored + exchanged(segment.start - 1) * size + index(m) : nullptr; });
    BAC_UNROLL for (int m = 0; m < kMine; ++m) {
      if (index(m) >= size) continue;
      if (segment.store & 2) b.memo[index(m)] = total[m];
      if (sent) add(total[m], arrived[m]);
      add(b.x[index(m) % width * kStride + index(m) / width], total[m]);
    }
  });
}

// Starts to copy what the cross-attention that computes next needs; in place of queries, keys and values. Columns are ordered
// (token, head).
BAC_FN void fetch_cross(const Block& b, int layer, int step) {
  if (layer < 0) return;
  const Params& p = b.p;
  const int width = b.s.width, heads = b.s.heads, columns = b.s.columns();
  const int of_time = (layer * p.steps + step) * heads, of_observed = layer * b.s.observed * heads - heads;  // rows of the tables
  b.team.each_item(columns * width / 4, [&](int i) {
    const int column = 4 * i / width, at = 4 * i % width, row = (column < heads ? of_time : of_observed) + column;
    fetch(reinterpret_cast<Quad*>(b.keys + column * Scratch::key_row(b.s) + at), (column < heads ? p.time_key : p.key) + row * width + at);
    fetch(reinterpret_cast<Quad*>(b.values) + i, (column < heads ? p.time_value : p.value) + row * width + at);
  });
  b.team.each_item(width / 4, [&](int i) { fetch(reinterpret_cast<Quad*>(b.cross_bias) + i, p.cross_bias + layer * width + 4 * i); });
  b.team.each_item(columns, [&](int i) { fetch(b.column_bias + i, i < heads ? p.time_bias + of_time + i : p.key_bias + of_observed + i); });
}

template <class W>
BAC_FN void queries_keys_values(const Block& b, const Weights<W>& weights, int layer, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(3 * width);
  normalise<false>(b, p.norms + layer * 3 * 2 * width);
  product(
      b, weights.qkv, b.most_rows(3 * width), width, [&](int row) { return weights.row(layer, 0, row, width); }, b.normed,
      [&](int row, int group, const Quad& q) {
        const float bias = weights.biases(layer)[row];
        send(p.wide + group * 3 * width + begin + row, q.x + bias, q.y + bias, q.z + bias, flag);
      });
}

// Softmax(q k^T / sqrt(D / H) + mask) v of all heads into `normed`.
BAC_FN void attend(const Block& b, unsigned flag) {
  constexpr int kParts = 8;  // lanes that share the columns of a head
  const Params& p = b.p;
  const int width = b.s.width, tokens = b.s.tokens, heads = b.s.heads, each = b.s.each();
  collect(b, p.wide, 3 * width, flag, b.wide);
  // A tile: the products of three queries with three keys of a head.
  const float scale = inverse_root(float(each));
  const int tiles = b.s.causal ? kGroups * (kGroups + 1) / 2 : kGroups * kGroups;
  b.team.each_warp([&](int warp) {
    constexpr int kTiles = kLanes / kParts;  // of a warp
    for (int from = warp * kTiles; from < heads * tiles; from += kWarps * kTiles) {
      PerLane<float[9]> sums;
      int at[kCopies][2];  // where the tile's first query and key are among the scores
      each_lane([&](int lane) {
        const int tile = least(from + lane / kParts, heads * tiles - 1), head = tile / tiles;
        int query = tile % tiles, key = 0;
        if (b.s.causal) {
          while (query >= key + 1) query -= ++key;
          const int swap = key;
          key = query, query = swap;
        } else {
          key = query % kGroups, query /= kGroups;
        }
        at[kCopies == 1 ? 0 : lane][0] = head * kTile + 3 * query, at[kCopies == 1 ? 0 : lane][1] = key;
        BAC_UNROLL for (int i = 0; i < 9; ++i) sums[lane][i] = 0;
        const Quad* columns = b.wide + head * each * kStride;
        BAC_UNROLL for (int part = 0; part < each; part += kParts) {
          const int column = part + lane % kParts;
          if (column >= each) continue;
          const Quad q = columns[column * kStride + query], k = columns[(width + column) * kStride + key];
          const float of_query[3] = {q.x, q.y, q.z}, of_key[3] = {k.x, k.y, k.z};
          BAC_UNROLL for (int i = 0; i < 9; ++i) sums[lane][i] += of_query[i / 3] * of_key[i % 3];
        }
      });
      spread_sums<kParts>(sums, [&](int lane, int which, float sum) {
        if (from + lane / kParts >= heads * tiles) return;
        const int row = at[kCopies == 1 ? 0 : lane][0] + which / 3, other = 3 * at[kCopies == 1 ? 0 : lane][1] + which % 3, token = row % kTile;
        if (token >= tokens || other >= tokens) return;
        reinterpret_cast<float*>(b.scores + row * kGroups)[place(other)] = sum * scale + (b.s.causal ? 0.0f : p.self_mask[token * tokens + other]);
      });
    }
  });
  b.team.sync();
  b.team.each_item(heads * tokens, [&](int i) {
    const int token = i % tokens, seen = b.s.causal ? token + 1 : tokens;
    float* score = reinterpret_cast<float*>(b.scores + (i / tokens * kTile + token) * kGroups);
    float weight[kTile], top = score[0], total = 0;
    BAC_UNROLL for (int j = 0; j < kTile; ++j) weight[j] = j < seen ? score[place(j)] : 0.0f;
    BAC_UNROLL for (int j = 1; j < kTile; ++j) top = j < seen ? fmaxf(top, weight[j]) : top;
    BAC_UNROLL for (int j = 0; j < kTile; ++j) total += weight[j] = j < seen ? power(weight[j] - top) : 0.0f;
    const float share = inverse(total);
    BAC_UNROLL for (int j = 0; j < kTile; ++j) score[place(j)] = weight[j] * share;
  });
  b.team.sync();
  b.team.each_item(width, [&](int column) {
    const Quad* weights = b.scores + column / each * kTile * kGroups;
    const Quad* values = b.wide + (2 * width + column) * kStride;
    Quad v[kGroups];
    BAC_UNROLL for (int g = 0; g < kGroups; ++g) v[g] = values[g];
    BAC_UNROLL for (int g = 0; g < kGroups; ++g) {
      float out[3];
      BAC_UNROLL for (int t = 0; t < 3; ++t) {
        out[t] = 0;
        if (3 * g + t >= tokens) continue;
        BAC_UNROLL for (int j = 0; j < kGroups; ++j) {
          const Quad w = weights[(3 * g + t) * kGroups + j];
          if (3 * j < tokens) out[t] += w.x * v[j].x;
          if (3 * j + 1 < tokens) out[t] += w.y * v[j].y;
          if (3 * j + 2 < tokens) out[t] += w.z * v[j].z;
        }
      }
      b.normed[column * kStride + g] = Quad{out[0], out[1], out[2], 0};
    }
  });
  b.team.sync();
}

template <class W>
BAC_FN void attention_output(const Block& b, const Weights<W>& weights, int layer, const Segment& segment, unsigned flag) {
  const int width = b.s.width, begin = b.begin(width);
  attend(b, flag - 1);
  product(
      b, weights.out, b.most_rows(width), width, [&](int row) { return weights.row(layer, weights.qkv, row, width); }, b.normed,
      [&](int row, int group, const Quad& q) {
        const float bias = weights.biases(layer)[weights.qkv + row];
        keep(b, segment, group * width + begin + row, Quad{q.x + bias, q.y + bias, q.z + bias, 0}, flag);
      });
  fetch_cross(b, segment.cross, segment.cross_step);
}

// The folded cross-attention. Every thread block adds all of it to its residual stream, and stores it to reuse it.
BAC_FN void cross_attention(const Block& b, int layer, const Segment& segment, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, heads = b.s.heads, count = b.s.count(), columns = b.s.columns();
  normalise<true>(b, p.norms + (layer * 3 + 1) * 2 * width);
  product(
      b, columns, columns, width, [&](int column) { return b.keys + column * Scratch::key_row(b.s); }, b.normed,
      [&](int column, int group, const Quad& q) {
        const float bias = b.column_bias[column];
        const auto mask = [&](int t) { return p.cross_mask[least(3 * group + t, b.s.tokens - 1) * count + column / heads]; };
        b.scores[column * kGroups + group] = Quad{q.x + bias + mask(0), q.y + bias + mask(1), q.z + bias + mask(2), 0};
      });
  b.team.sync();
  b.team.each_item(heads * kTile, [&](int i) {
    float* score = reinterpret_cast<float*>(b.scores + i / kTile * kGroups) + place(i % kTile);
    const int next = heads * kGroups * 4;  // numbers from a column to the next one of the head
    float top = score[0], total = 0;
    for (int j = 1; j < count; ++j) top = fmaxf(top, score[j * next]);
    for (int j = 0; j < count; ++j) total += score[j * next] = power(score[j * next] - top);
    const float share = inverse(total);
    for (int j = 0; j < count; ++j) score[j * next] *= share;
  });
  b.team.sync();
  b.team.each_item(width, [&](int column) {
    const float bias = b.cross_bias[column];
    Quad total[kGroups];
    BAC_UNROLL for (int g = 0; g < kGroups; ++g) total[g] = Quad{bias, bias, bias, 0};
    BAC_UNROLL for (int c = 0; c < columns; ++c) {
      const float value = b.values[c * width + column];
      BAC_UNROLL for (int g = 0; g < kGroups; ++g) add(total[g], value, b.scores[c * kGroups + g]);
    }
    BAC_UNROLL for (int g = 0; g < kGroups; ++g) {
      add(b.x[column * kStride + g], total[g]);
      if (segment.store & 1) keep(b, segment, g * width + column, total[g], flag);
    }
  });
  if (segment.cross < 0) return;
  b.team.sync();
  fetch_cross(b, segment.cross, segment.cross_step);
}

template <class W>
BAC_FN void hidden_units(const Block& b, const Weights<W>& weights, int layer, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(4 * width);
  normalise<false>(b, p.norms + (layer * 3 + 2) * 2 * width);
  product(
      b, weights.up, b.most_rows(4 * width), width, [&](int row) { return weights.row(layer, weights.qkv + weights.out, row, width); }, b.normed,
      [&](int row, int group, const Quad& q) {
        const float bias = weights.biases(layer)[weights.qkv + weights.out + row];
        send(p.wide + group * 4 * width + begin + row, gelu(q.x + bias), gelu(q.y + bias), gelu(q.z + bias), flag);
      });
}

template <class W>
BAC_FN void feed_forward_output(const Block& b, const Weights<W>& weights, int layer, const Segment& segment, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(width), before = weights.qkv + weights.out + weights.up;
  Quad* hidden = b.normed;  // and what is behind it
  collect(b, p.wide, 4 * width, flag - 1, hidden);
  product(
      b, weights.down, b.most_rows(width), 4 * width, [&](int row) { return weights.row(layer, before, row, 4 * width); }, hidden,
      [&](int row, int group, const Quad& q) {
        const float bias = weights.biases(layer)[before + row];
        keep(b, segment, group * width + begin + row, Quad{q.x + bias, q.y + bias, q.z + bias, 0}, flag);
      });
  fetch_cross(b, segment.cross, segment.cross_step);
}

// Final norm, head, and the sampler's update of the trajectory (see bac.solver).
BAC_FN void read_out(const Block& b, int step) {
  const Params& p = b.p;
  const int width = b.s.width, numbers = b.s.numbers;
  const Step solve = b.step(step);
  normalise<true>(b, p.final_norm);
  product(
      b, numbers, numbers, width, [&](int row) { return p.head + row * width; }, b.normed,
      [&](int row, int group, const Quad& q) {
        const float bias = p.head_bias[row], sums[3] = {q.x + bias, q.y + bias, q.z + bias};
        BAC_UNROLL for (int t = 0; t < 3; ++t) {
          if (3 * group + t >= b.s.tokens) continue;
          const int at = (3 * group + t) * numbers + row;
          const float x = b.trajectory[at], out = sums[t], estimate = solve.x_gain * x + solve.m_gain * out;
          const float clean = estimate < -p.clip ? -p.clip : estimate > p.clip ? p.clip : estimate;  // stays what it is if not a number
          float next = solve.to_x * x + solve.to_x0 * clean + solve.to_m * out;
          if (solve.to_last != 0.0f && step > 0) next += solve.to_last * b.last[at];
          if (solve.noise >= 0) next += solve.sigma * b.noise[at];
          b.last[at] = clean;
          b.trajectory[at] = next;
        }
      });
}

}  // namespace bac
