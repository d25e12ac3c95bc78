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
    b.x[i] = total;
  });
}

// What is added to the residual stream before a norm: the output that was just sent, and stored ones.
struct Added {
  Segment segment;
  int step;
  bool sent;      // the block before the segment has sent its output
  unsigned flag;  // of that
};

// x += for a thread's quads, which no other thread writes.
BAC_FN void add_outputs(const Block& b, const Added& added, const Items& items) {
  constexpr int kAtOnce = 2;  // blocks whose outputs are on their way
  const Params& p = b.p;
  const Segment& segment = added.segment;
  const int size = kGroups * b.s.width;
  const float* ahead = b.s.slopes ? p.ahead + added.step * 3 * b.s.layers : nullptr;
  Quad total[kMine], arrived[kMine];
  BAC_UNROLL for (int m = 0; m < kMine; ++m) total[m] = segment.store & 4 && items(m) < size ? b.memo[items(m)] : Quad{0, 0, 0, 0};
  for (int block = segment.start; !(segment.store & 4) && block < segment.stop; block += kAtOnce) {
    Quad value[kAtOnce][kMine];
    BAC_UNROLL for (int j = 0; j < kAtOnce; ++j) BAC_UNROLL for (int m = 0; m < kMine; ++m)
      if (block + j < segment.stop && items(m) < size) value[j][m] = remote(output_of(b, p.stored, p.cross, block + j) + items(m));
    BAC_UNROLL for (int j = 0; j < kAtOnce; ++j) BAC_UNROLL for (int m = 0; m < kMine; ++m) {
      if (block + j >= segment.stop || items(m) >= size) continue;
      add(total[m], value[j][m]);
      if (!ahead || ahead[block + j] == 0.0f) continue;
      Quad slope[1];
      receive(slope, flag_of(value[j][m]), [&](int) { return output_of(b, p.slopes, p.cross_slopes, block + j) + items(m); });
      add(total[m], ahead[block + j], slope[0]);
    }
  }
  if (added.sent) receive(arrived, added.flag, [&](int m) { return items(m) < size ? p.stored + exchanged(segment.start - 1) * size + items(m) : nullptr; });
  BAC_UNROLL for (int m = 0; m < kMine; ++m) {
    if (items(m) >= size) continue;
    if (segment.store & 2) b.memo[items(m)] = total[m];
    if (added.sent) add(total[m], arrived[m]);
    add(b.x[items(m)], total[m]);
  }
}

// The residual stream up to the block of a segment, and its norm.
BAC_FN void advance(const Block& b, const Added& added, const float* norm) {
  if (!added.sent) b.team.sync();  // a cross-attention may have added to x just now
  normalise(b, norm, [&](const Items& items) { add_outputs(b, added, items); });
}

// Starts to copy what the cross-attention that computes next needs; in place of queries, keys and values. Columns are ordered
// (token, head).
BAC_FN void fetch_cross(const Block& b, int layer, int step) {
  if (layer < 0) return;
  const Params& p = b.p;
  const int width = b.s.width, heads = b.s.heads, columns = b.s.columns(), quads = width / 4;  // of a row of either table
  const int of_time = (layer * p.steps + step) * heads, of_observed = layer * b.s.observed * heads - heads;  // rows of the tables
  b.team.each_late_item(columns * quads, [&](int i) {
    const int column = i / quads, at = i % quads, row = ((column < heads ? of_time : of_observed) + column) * quads + at;
    const int low = at < quads / 2 ? 0 : Scratch::halves(kPad);
    fetch(reinterpret_cast<Quad*>(b.keys) + column * 2 * Scratch::halves(Scratch::pitch(width)) + at + low, reinterpret_cast<const Quad*>(column < heads ? p.time_key : p.key) + row);
    fetch(reinterpret_cast<Quad*>(b.values) + i, reinterpret_cast<const Quad*>(column < heads ? p.time_value : p.value) + row);
  });
  b.team.each_late_item(quads, [&](int i) { fetch(reinterpret_cast<Quad*>(b.cross_bias) + i, p.cross_bias + layer * width + 4 * i); });
  b.team.each_late_item(columns, [&](int i) { fetch(b.column_bias + i, i < heads ? p.time_bias + of_time + i : p.key_bias + of_observed + i); });
}

template <bool Low>
BAC_FN void queries_keys_values(const Block& b, const Weights<Low>& weights, int layer, const Added& added, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(3 * width);
  advance(b, added, p.norms + layer * 3 * 2 * width);
  product<Low>(
      b, weights.qkv, b.most_rows(3 * width), width, [&](int row) { return weights.row(layer, 0, row, width); }, b.normed,
      [&](int row, int group, const Quad& q) {
        const float bias = weights.biases(layer)[row];
        send(p.wide + group * 3 * width + begin + row, packed(q.x + bias), packed(q.y + bias), packed(q.z + bias), flag);
      });
}

// Softmax(q k^T / sqrt(D / H) + mask) v of all heads into `normed`. Some warps share a head: each has all its scores, and some
// columns of its values.
BAC_FN void attend(const Block& b, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, tokens = b.s.tokens, heads = b.s.heads, each = b.s.each(), pitch = Scratch::pitch(width);
  Half *queries = b.queries, *keys = queries + 2 * tokens * pitch, *values = keys + 2 * tokens * pitch, *low_values = values + width * kValues;
  collect(b, p.wide, 3 * width, flag, [&](int column, int group, const Quad& q) {
    if (column < 2 * width) return put_packed(b, column < width ? queries : keys, pitch, group, column % width, q);
    const Split parts[3] = {unpacked(q.x), unpacked(q.y), unpacked(q.z)};
    const int at = (column - 2 * width) * kValues + 3 * group;
    BAC_UNROLL for (int t = 0; t < 3; ++t)
      if (3 * group + t < tokens) values[at + t] = parts[t].high, low_values[at + t] = parts[t].low;
  });
  const float scale = inverse_root(float(each));
  const int sharing = most(kWarps / heads, 1);  // warps of a head
  constexpr int kTiles = kTile > 8 ? 2 : 1;     // of eight keys
  b.team.each_warp([&](int warp) {
    for (int head = warp / sharing; head < heads; head += kWarps / sharing) {
      PerLane<float[4]> score[kTiles], low[kTiles];
      each_lane([&](int lane) {
        BAC_UNROLL for (int tile = 0; tile < kTiles; ++tile) BAC_UNROLL for (int i = 0; i < 4; ++i) score[tile][lane][i] = low[tile][lane][i] = 0;
      });
      BAC_UNROLL for (int unit = 0; unit < each / kDeep; ++unit) {
        PerLane<unsigned[4]> query, low_query;
        PerLane<unsigned[2]> key[kTiles], low_key[kTiles];
        each_lane([&](int lane) {
          const int column = head * each + unit * kDeep + lane % 4 * 2;
          tokens_at(query[lane], queries + column, pitch, lane, tokens);
          tokens_at(low_query[lane], queries + tokens * pitch + column, pitch, lane, tokens);
          BAC_UNROLL for (int tile = 0; tile < kTiles; ++tile) {
            const Half* from = keys + least(tile * 8 + lane / 4, tokens - 1) * pitch + column;
            key[tile][lane][0] = pair_at(from), key[tile][lane][1] = pair_at(from + 8);
            from += tokens * pitch;
            low_key[tile][lane][0] = pair_at(from), low_key[tile][lane][1] = pair_at(from + 8);
          }
        });
        BAC_UNROLL for (int tile = 0; tile < kTiles; ++tile) {
          multiply(score[tile], query, key[tile]);
          multiply(low[tile], low_query, key[tile]);
          multiply(low[tile], query, low_key[tile]);
        }
      }
      // A lane has scores of two queries, lane / 4 and the eighth after it, with two keys of each tile.
      PerLane<float[2]> top, total;
      each_lane([&](int lane) {
        BAC_UNROLL for (int i = 0; i < 2; ++i) top[lane][i] = -1e30f;
        BAC_UNROLL for (int tile = 0; tile < kTiles; ++tile) BAC_UNROLL for (int i = 0; i < 4; ++i) {
          const int token = least(lane / 4 + i / 2 * 8, tokens - 1), other = tile * 8 + lane % 4 * 2 + i % 2;
          float& s = score[tile][lane][i];
          s = (s + low[tile][lane][i] * (1.0f / kLow)) * scale;
          if (!b.s.causal && other < tokens) s += p.self_mask[token * tokens + other];
          if (other >= tokens || (b.s.causal && other > token)) s = -1e30f;
          top[lane][i / 2] = fmaxf(top[lane][i / 2], s);
        }
      });
      over_four(top, [](float x, float y) { return fmaxf(x, y); });
      PerLane<unsigned[4]> weights, low_weights;
      each_lane([&](int lane) {
        BAC_UNROLL for (int i = 0; i < 4; ++i) weights[lane][i] = low_weights[lane][i] = 0;
        BAC_UNROLL for (int half = 0; half < 2; ++half) {
          total[lane][half] = 0;
          BAC_UNROLL for (int tile = 0; tile < kTiles; ++tile) {
            const float* s = score[tile][lane] + 2 * half;
            const float first = power(s[0] - top[lane][half]), second = power(s[1] - top[lane][half]);
            const Split a = split(first), c = split(second);
            total[lane][half] += first + second;
            weights[lane][half + 2 * tile] = two(a.high, c.high), low_weights[lane][half + 2 * tile] = two(a.low, c.low);
          }
        }
      });
      over_four(total, [](float x, float y) { return x + y; });
      for (int tile = warp % sharing; tile < each / 8; tile += sharing) {
        PerLane<float[4]> out, low_out;
        PerLane<unsigned[2]> value, low_value;
        each_lane([&](int lane) {
          BAC_UNROLL for (int i = 0; i < 4; ++i) out[lane][i] = low_out[lane][i] = 0;
          const int at = (head * each + tile * 8 + lane / 4) * kValues + lane % 4 * 2;
          BAC_UNROLL for (int i = 0; i < 2; ++i) {
            const int token = 8 * i + lane % 4 * 2;  // and the next one; there is nothing behind the last
            const unsigned mask = token + 1 < tokens ? 0xffffffffu : token < tokens ? 0xffffu : 0;
            value[lane][i] = pair_at(values + at + 8 * i) & mask, low_value[lane][i] = pair_at(low_values + at + 8 * i) & mask;
          }
        });
        multiply(out, weights, value);
        multiply(low_out, low_weights, value);
        multiply(low_out, weights, low_value);
        each_lane([&](int lane) {
          BAC_UNROLL for (int half = 0; half < 2; ++half) {
            const int token = lane / 4 + 8 * half;
            if (token >= tokens) continue;
            const float share = inverse(total[lane][half]);
            const Split a = split((out[lane][2 * half] + low_out[lane][2 * half] * (1.0f / kLow)) * share);
            const Split c = split((out[lane][2 * half + 1] + low_out[lane][2 * half + 1] * (1.0f / kLow)) * share);
            Half* to = b.normed + token * pitch + head * each + tile * 8 + lane % 4 * 2;
            *reinterpret_cast<unsigned*>(to) = two(a.high, c.high);
            *reinterpret_cast<unsigned*>(to + tokens * pitch) = two(a.low, c.low);
          }
        });
      }
    }
  });
  b.team.sync();
}

template <bool Low>
BAC_FN void attention_output(const Block& b, const Weights<Low>& weights, int layer, const Segment& segment, unsigned flag) {
  const int width = b.s.width, begin = b.begin(width);
  attend(b, flag - 1);
  fetch_cross(b, segment.cross, segment.cross_step);
  product<Low>(
      b, weights.out, b.most_rows(width), width, [&](int row) { return weights.row(layer, weights.qkv, row, width); }, b.normed,
      [&](int row, int group, const Quad& q) {
        const float bias = weights.biases(layer)[weights.qkv + row];
        keep(b, segment, group * width + begin + row, Quad{q.x + bias, q.y + bias, q.z + bias, 0}, flag);
      });
}

// The folded cross-attention. Every thread block adds all of it to its residual stream, and stores it to reuse it.
BAC_FN void cross_attention(const Block& b, int layer, const Segment& segment, const Added& added, unsigned flag) {
  constexpr int kColumns = 4;  // of an item below
  const Params& p = b.p;
  const int width = b.s.width, heads = b.s.heads, count = b.s.count(), columns = b.s.columns();
  advance(b, added, p.norms + (layer * 3 + 1) * 2 * width);
  const Sums sums = multiply_rows<true>(b, 0, columns, (columns + kRows - 1) / kRows, width, [&](int column) { return b.keys + column * 2 * Scratch::pitch(width); }, b.normed);
  b.team.sync();
  b.team.each_item(heads * kGroups, [&](int i) {  // three tokens of a head
    const int head = i / kGroups, group = i % kGroups;
    Quad top{-1e30f, -1e30f, -1e30f, 0}, total{0, 0, 0, 0};
    for (int j = 0; j < count; ++j) {
      const int column = j * heads + head;
      const float bias = b.column_bias[column];
      const auto mask = [&](int t) { return bias + p.cross_mask[least(3 * group + t, b.s.tokens - 1) * count + j]; };
      Quad score = sums.total(b, column, group);
      add(score, Quad{mask(0), mask(1), mask(2), 0});
      b.scores[column * kGroups + group] = score;
      top = {fmaxf(top.x, score.x), fmaxf(top.y, score.y), fmaxf(top.z, score.z), 0};
    }
    for (int j = 0; j < count; ++j) {
      Quad& score = b.scores[(j * heads + head) * kGroups + group];
      score = {power(score.x - top.x), power(score.y - top.y), power(score.z - top.z), 0};
      add(total, score);
    }
    total = {inverse(total.x), inverse(total.y), inverse(total.z), 0};
    for (int j = 0; j < count; ++j) {
      Quad& score = b.scores[(j * heads + head) * kGroups + group];
      score = {score.x * total.x, score.y * total.y, score.z * total.z, 0};
    }
  });
  b.team.sync();
  b.team.each_item(width / kColumns * kGroups, [&](int i) {
    const int apart = width / kColumns, column = i % apart, group = i / apart, at = group * width + column;
    Quad total[kColumns];
    BAC_UNROLL for (int j = 0; j < kColumns; ++j) total[j].x = total[j].y = total[j].z = b.cross_bias[column + j * apart];
    BAC_UNROLL for (int c = 0; c < columns; ++c) {
      const Quad weight = b.scores[c * kGroups + group];
      BAC_UNROLL for (int j = 0; j < kColumns; ++j) add(total[j], b.values[c * width + column + j * apart], weight);
    }
    BAC_UNROLL for (int j = 0; j < kColumns; ++j) {
      add(b.x[at + j * apart], total[j]);
      if (segment.store & 1) keep(b, segment, at + j * apart, total[j], flag);
    }
  });
  if (segment.cross < 0) return;
  b.team.sync();
  fetch_cross(b, segment.cross, segment.cross_step);
}

template <bool Low>
BAC_FN void hidden_units(const Block& b, const Weights<Low>& weights, int layer, const Added& added, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(4 * width);
  advance(b, added, p.norms + (layer * 3 + 2) * 2 * width);
  product<Low>(
      b, weights.up, b.most_rows(4 * width), width, [&](int row) { return weights.row(layer, weights.qkv + weights.out, row, width); }, b.normed,
      [&](int row, int group, const Quad& q) {
        const float bias = weights.biases(layer)[weights.qkv + weights.out + row];
        send(p.wide + group * 4 * width + begin + row, packed(gelu(q.x + bias)), packed(gelu(q.y + bias)), packed(gelu(q.z + bias)), flag);
      });
}

template <bool Low>
BAC_FN void feed_forward_output(const Block& b, const Weights<Low>& weights, int layer, const Segment& segment, unsigned flag) {
  const Params& p = b.p;
  const int width = b.s.width, begin = b.begin(width), before = weights.qkv + weights.out + weights.up;
  collect(b, p.wide, 4 * width, flag - 1, [&](int column, int group, const Quad& q) { put_packed(b, b.hidden, Scratch::pitch(4 * width), group, column, q); });
  product<Low>(
      b, weights.down, b.most_rows(width), 4 * width, [&](int row) { return weights.row(layer, before, row, 4 * width); }, b.hidden,
      [&](int row, int group, const Quad& q) {
        const float bias = weights.biases(layer)[before + row];
        keep(b, segment, group * width + begin + row, Quad{q.x + bias, q.y + bias, q.z + bias, 0}, flag);
      });
  fetch_cross(b, segment.cross, segment.cross_step);
}

// Final norm, head, and the sampler's update of the trajectory (see bac.solver).
BAC_FN void read_out(const Block& b, int step, const Added& added) {
  const Params& p = b.p;
  const int width = b.s.width, numbers = b.s.numbers;
  const Step solve = b.step(step);
  advance(b, added, p.final_norm);
  product<true>(
      b, numbers, numbers, width, [&](int row) { return b.head + row * 2 * Scratch::pitch(width); }, b.normed,
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
