// The denoising loop as one thread of a team runs it.
//
// Follows the program of bac.plan.Plan: what each step computes, which stored outputs it adds, what it stores.
// Cross-attention is folded (bac.folding); the scheduler is a table (bac.solver). All arithmetic is float32.
#pragma once
#include <limits>

#include "product.hpp"
#include "team.hpp"

namespace bac {
namespace {

inline int blocks(const Model& m) { return m.layers * (m.cross ? 3 : 2); }

// Buffers of the samples one team works on: [rows][d] or as said. Outputs are stored where the plan reuses any.
struct Workspace {
  Workspace(const Model& m, const Call& c, int rows, Parts& parts)
      : x(parts.take(size_t(rows) * m.d)), wide(parts.take(size_t(rows) * 4 * m.d)), heads_out(parts.take(size_t(rows) * m.d)),
        stored(parts.take(m.stores ? size_t(blocks(m)) * rows * m.d : 0)), slopes(parts.take(m.ahead ? size_t(blocks(m)) * rows * m.d : 0)),
        last(parts.take(size_t(rows) * m.d_in)), key(parts.take(folded(m, c, rows) * m.d)), value(parts.take(folded(m, c, rows) * m.d)),
        bias(parts.take(folded(m, c, rows))), token(parts.take(encoded(m, c, rows) * m.d)),
        token_wide(parts.take(encoded(m, c, rows) * 4 * m.d)) {}
  static size_t encoded(const Model& m, const Call& c, int rows) { return c.observation ? size_t(rows / m.tokens) * c.memory : 0; }
  static size_t folded(const Model& m, const Call& c, int rows) {
    return c.observation ? size_t(m.layers) * (rows / m.tokens) * c.memory * m.heads : 0;
  }
  float *x, *wide, *heads_out;  // wide: [rows][4 d]
  float *stored, *slopes;       // [blocks][rows][d]
  float* last;                  // [rows][d_in]
  float *key, *value, *bias;    // condition tokens, folded: [layers][samples][memory][heads][d], bias without [d]
  float *token, *token_wide;    // [samples][memory][d], encoded, and [4 d] on the way
};

// Where a branch's output goes besides the residual stream; null where it is not needed later.
struct Kept {
  float* value;     // [rows][d], in: the output before, out: this one
  float* slope;     // [rows][d] change from that one per step
  float per_step;   // 1 / steps between the two
};

// One thread of a team. The team shares a workspace: products are split by columns, everything per row by rows.
class Worker {
 public:
  Worker(const Model& m, const Call& c, int first, int samples, const Workspace& w, Barrier& barrier, int id, int team, Parts& parts)
      : m(m), c(c), first(first), samples(samples), rows(samples * m.tokens), w(w), barrier(barrier), id(id), team(team),
        lanes(round_up(m.heads * (c.memory + 1))), normed(parts.take(size_t(rows) * m.d)),
        values(parts.take(size_t(m.d) * lanes)), scores(parts.take(size_t(m.tokens) * lanes)), column_bias(parts.take(lanes)),
        head_keys(parts.take(head_keys_size())), weights(parts.take(size_t(m.tokens) * round_up(m.tokens))),
        head_out(parts.take(size_t(rows / team + 1) * m.head.n)),
        projected(parts.take(c.observation ? size_t(samples) * c.memory * 2 * m.d : 0)), narrow(parts.take(size_t(rows) * 2 * m.d)) {
    if (parts.start) std::memset(head_keys, 0, head_keys_size() * sizeof(float));  // padded columns stay finite
  }

  // Allocates nothing and throws nothing: it runs in threads.
  void run() noexcept {
    const int sample_size = (m.tokens - m.skip) * m.d_in;
    if (c.observation) fold();
    for (int step = 0; step < m.steps; ++step) {
      embed(step, sample_size);
      for (int s = m.segment_start[step]; s < m.segment_start[step + 1]; ++s) {
        const Segment& segment = m.segments[s];
        add_stored(segment, step);
        if (segment.block < 0) continue;
        const size_t at = size_t(segment.block) * rows * m.d;
        Kept kept{};
        if (segment.store) kept.value = w.stored + at;
        if (segment.gap) kept.slope = w.slopes + at, kept.per_step = 1.0f / segment.gap;
        compute(segment.block, step, kept);
      }
      barrier.wait();
      read_out(step, sample_size);
      barrier.wait();
    }
    if (c.given && id == 0) force_given(sample_size);
  }

 private:
  size_t head_keys_size() const { return size_t(m.d / m.heads) * round_up(m.tokens); }
  int row_begin() const { return int(int64_t(rows) * id / team); }
  int row_end() const { return int(int64_t(rows) * (id + 1) / team); }

  void force_given(int sample_size) {
    const size_t offset = size_t(first) * sample_size;
    for (size_t i = offset; i < offset + size_t(samples) * sample_size; ++i)
      if (c.given[i]) c.trajectory[i] = c.condition[i];
  }

  // Encodes the condition tokens; every worker has its columns of each product.
  void encode() {
    const int tokens = samples * c.memory, width = m.cond_embed.k;
    product(c.observation + size_t(first) * c.memory * width, width, tokens, m.cond_embed, id, team, [&](int row, int column, vf value) {
      store(w.token + size_t(row) * m.d + column, value + load(m.cond_position + size_t(row % c.memory) * m.d + column));
    });
    barrier.wait();
    product(w.token, tokens, m.cond_up, nullptr, id, team,
            [&](int row, int column, vf value) { store(w.token_wide + size_t(row) * 4 * m.d + column, mish(value)); });
    barrier.wait();
    product(w.token_wide, tokens, m.cond_down, nullptr, id, team,
            [&](int row, int column, vf value) { store(w.token + size_t(row) * m.d + column, value); });
    barrier.wait();
  }

  // Folds the condition tokens into the cross-attention of every layer (see bac.folding); layers are dealt out.
  void fold() {
    encode();
    const int dh = m.d / m.heads, tokens = samples * c.memory;
    const float scale = 1.0f / std::sqrt(float(dh));
    for (int index = id; index < m.layers; index += team) {
      const Layer& layer = m.layer[index];
      product(w.token, tokens, layer.key_value, nullptr, 0, 1, [&](int row, int column, vf value) {
        store(projected + size_t(row) * 2 * m.d + column, column < m.d ? value * scale : value);
      });
      const size_t at = size_t(index) * tokens * m.heads;
      for (int head = 0; head < m.heads; ++head) {
        const float *key = projected + head * dh, *value = key + m.d;
        auto into = [&](float* table) {
          return [this, table, at, head](int row, int column, vf folded) {
            store(table + (at + size_t(row) * m.heads + head) * m.d + column, folded);
          };
        };
        product(key, 2 * m.d, tokens, layer.fold_query[head], 0, 1, into(w.key));
        product(value, 2 * m.d, tokens, layer.fold_out[head], 0, 1, into(w.value));
        for (int row = 0; row < tokens; ++row) {
          float total = 0;
          for (int i = 0; i < dh; ++i) total += key[size_t(row) * 2 * m.d + i] * layer.query_bias[head * dh + i];
          w.bias[at + size_t(row) * m.heads + head] = total;
        }
      }
    }
    barrier.wait();
  }

  // x = position + input embedding of the trajectory (+ time token)
  void embed(int step, int sample_size) {
    if (c.given) {
      if (id == 0) force_given(sample_size);
      barrier.wait();
    }
    for (int row = row_begin(); row < row_end(); ++row) {
      const int token = row % m.tokens;
      float* x = w.x + size_t(row) * m.d;
      if (token < m.skip) {
        for (int j = 0; j < m.d; j += kWidth) store(x + j, load(m.time_rows + size_t(step) * m.d + j));
        continue;
      }
      const float* in = c.trajectory + size_t(first + row / m.tokens) * sample_size + (token - m.skip) * m.d_in;
      for (int j = 0; j < m.d; j += kWidth) {
        vf total = load(m.position + size_t(token) * m.d + j);
        for (int i = 0; i < m.d_in; ++i) total += load(m.embed + size_t(i) * m.d + j) * in[i];
        store(x + j, total);
      }
    }
    barrier.wait();
  }

  void add_stored(const Segment& segment, int step) {
    if (segment.start == segment.stop) return;
    const float* ahead = m.ahead ? m.ahead + size_t(step) * blocks(m) : nullptr;
    const size_t size = size_t(rows) * m.d, begin = size_t(row_begin()) * m.d, end = size_t(row_end()) * m.d;
    for (size_t i = begin; i < end; i += kWidth) {
      vf total = load(w.x + i);
      for (int block = segment.start; block < segment.stop; ++block) {
        total += load(w.stored + block * size + i);
        if (ahead && ahead[block] != 0.0f) total += load(w.slopes + block * size + i) * ahead[block];
      }
      store(w.x + i, total);
    }
    barrier.wait();
  }

  void compute(int block, int step, const Kept& kept) {
    const int per_layer = m.cross ? 3 : 2;
    const Layer& layer = m.layer[block / per_layer];
    const int kind = block % per_layer;
    if (kind == 0) self_attention(layer, kept);
    else if (kind == 1 && m.cross) cross_attention(layer, block / per_layer, step, kept);
    else feed_forward(layer, kept);
    barrier.wait();
  }

  // Adds a branch's output to the residual stream and stores it, and its slope, if they are reused.
  auto residual(const Kept& kept) {
    return [this, kept](int row, int column, vf value) {
      const size_t at = size_t(row) * m.d + column;
      store(w.x + at, load(w.x + at) + value);
      if (kept.slope) store(kept.slope + at, (value - load(kept.value + at)) * kept.per_step);
      if (kept.value) store(kept.value + at, value);
    };
  }

  // This worker's columns of activations [rows][w.k] times a matrix, and its bias.
  template <class Emit>
  void multiply(const float* a, const Matrix& matrix, Emit&& emit) {
    product(a, rows, matrix, reinterpret_cast<uint32_t*>(narrow), id, team, emit);
  }

  // Every worker normalises all rows into its own buffer: cheaper than a barrier.
  void normalise(const float* gain, const float* shift) { layer_norm(w.x, normed, rows, m.d, gain, shift, m.eps); }

  void self_attention(const Layer& layer, const Kept& kept) {
    normalise(layer.norm1_gain, layer.norm1_shift);
    const int width = 3 * m.d;
    multiply(normed, layer.qkv,
            [&](int row, int column, vf value) { store(w.wide + size_t(row) * width + column, value); });
    barrier.wait();
    for (int task = id; task < samples * m.heads; task += team) attend(task / m.heads, task % m.heads);
    barrier.wait();
    multiply(w.heads_out, layer.out, residual(kept));
  }

  // weights = q k^T scale + mask of one sample and head
  void transposed_scores(const float* q, const float* k, float scale) {
    const int dh = m.d / m.heads, width = 3 * m.d, lanes = round_up(m.tokens);
    for (int j = 0; j < m.tokens; ++j)
      for (int i = 0; i < dh; ++i) head_keys[size_t(i) * lanes + j] = k[size_t(j) * width + i];
    small_product(q, width, m.tokens, head_keys, lanes, dh, lanes, [&](int row, int column, vf value) {
      const size_t at = size_t(row) * lanes + column;
      store(weights + at, value * scale + load(m.self_mask + at));
    });
  }

  // softmax(q k^T / sqrt(dh) + mask) v of one sample and head
  void attend(int sample, int head) {
    const int dh = m.d / m.heads, width = 3 * m.d, lanes = round_up(m.tokens);
    const float* q = w.wide + size_t(sample) * m.tokens * width + head * dh;
    const float *k = q + m.d, *v = q + 2 * m.d;
    const float scale = 1.0f / std::sqrt(float(dh));
    if (dh % kLanes == 0) {  // keys as they lie: for so few tokens transposing them takes longer
      for (int row = 0; row < m.tokens; ++row) {
        float* p = weights + size_t(row) * lanes;
        const float* mask = m.self_mask + size_t(row) * lanes;
        std::memcpy(p + m.tokens, mask + m.tokens, size_t(lanes - m.tokens) * sizeof(float));
        for (int j = 0; j < m.tokens; ++j) p[j] = dot(q + size_t(row) * width, k + size_t(j) * width, dh) * scale + mask[j];
      }
    } else {
      transposed_scores(q, k, scale);
    }
    for (int row = 0; row < m.tokens; ++row) {
      float* p = weights + size_t(row) * lanes;
      float top = -std::numeric_limits<float>::infinity();
      for (int j = 0; j < m.tokens; ++j) top = p[j] > top ? p[j] : top;
      vf total{};
      for (int j = 0; j < lanes; j += kWidth) {
        const vf e = bac::exp(load(p + j) - top);
        store(p + j, e);
        total += e;
      }
      const float inverse = 1.0f / sum(total);
      for (int j = 0; j < lanes; j += kWidth) store(p + j, load(p + j) * inverse);
    }
    float* out = w.heads_out + size_t(sample) * m.tokens * m.d + head * dh;
    if (dh % kLanes == 0) {
      small_product(weights, lanes, m.tokens, v, width, m.tokens, dh,
                    [&](int row, int column, vf value) { store(out + size_t(row) * m.d + column, value); });
      return;
    }
    // The sum over tokens is the outer loop: as the inner one, a compiler fuses multiply and add in its last rounds only,
    // so that a row would depend on how many tokens there are.
    for (int row = 0; row < m.tokens; ++row) {
      float* total = out + size_t(row) * m.d;
      std::memset(total, 0, size_t(dh) * sizeof(float));
      for (int j = 0; j < m.tokens; ++j)
        for (int i = 0; i < dh; ++i) total[i] += weights[size_t(row) * lanes + j] * v[size_t(j) * width + i];
    }
  }

  void cross_attention(const Layer& layer, int index, int step, const Kept& kept) {
    normalise(layer.norm2_gain, layer.norm2_shift);
    barrier.wait();  // the others may still be reading x
    const int time = layer.time_key ? 1 : 0, count = time + c.memory, columns = count * m.heads;
    const int slot = c.memory_slot ? c.memory_slot[index * m.steps + step] : 0;
    // a team that has fewer samples than threads shares the tokens of each
    const bool split = samples < team;
    const int begin = split ? m.tokens * id / team : 0, end = split ? m.tokens * (id + 1) / team : m.tokens;
    for (int sample = split ? 0 : id; sample < samples && begin < end; sample += split ? 1 : team) {
      // columns are ordered (token, head)
      const int row0 = sample * m.tokens + begin;
      const size_t at = (c.observation ? size_t(index) * samples + sample : size_t(slot) * c.batch + first + sample) * c.memory * m.heads;
      for (int column = 0; column < columns; ++column) {
        const bool is_time = column < time * m.heads;
        const size_t entry = is_time ? size_t(step) * m.heads + column : at + column - time * m.heads;
        const float* key = (is_time ? layer.time_key : c.observation ? w.key : c.key) + entry * m.d;
        const float* value = (is_time ? layer.time_value : c.observation ? w.value : c.value) + entry * m.d;
        column_bias[column] = (is_time ? layer.time_bias : c.observation ? w.bias : c.bias)[entry];
        for (int row = 0; row < end - begin; ++row) scores[size_t(row) * lanes + column] = dot(normed + size_t(row0 + row) * m.d, key, m.d);
        std::memcpy(values + size_t(column) * m.d, value, m.d * sizeof(float));
      }
      for (int row = 0; row < end - begin; ++row)
        softmax_heads(scores + size_t(row) * lanes, c.cross_mask + (begin + row) * count, count);
      auto add = residual(kept);
      small_product(scores, lanes, end - begin, values, m.d, columns, m.d, [&](int row, int column, vf value) {
        add(row0 + row, column, value + load(layer.cross_bias + column));
      });
    }
  }

  // softmax over tokens, for each head, of one row ordered (token, head)
  void softmax_heads(float* row, const float* mask, int count) {
    for (int column = count * m.heads; column < lanes; ++column) row[column] = 0;
    for (int head = 0; head < m.heads; ++head) {
      float top = -std::numeric_limits<float>::infinity();
      for (int s = 0; s < count; ++s) {
        float& score = row[s * m.heads + head];
        score += column_bias[s * m.heads + head] + mask[s];
        top = score > top ? score : top;
      }
      for (int s = 0; s < count; ++s) row[s * m.heads + head] -= top;
    }
    for (int j = 0; j < lanes; j += kWidth) store(row + j, bac::exp(load(row + j)));
    for (int head = 0; head < m.heads; ++head) {
      float total = 0;
      for (int s = 0; s < count; ++s) total += row[s * m.heads + head];
      for (int s = 0; s < count; ++s) row[s * m.heads + head] /= total;
    }
  }

  void feed_forward(const Layer& layer, const Kept& kept) {
    if (m.cross) normalise(layer.norm3_gain, layer.norm3_shift);
    else normalise(layer.norm2_gain, layer.norm2_shift);
    const int width = 4 * m.d;
    multiply(normed, layer.up,
            [&](int row, int column, vf value) { store(w.wide + size_t(row) * width + column, gelu(value)); });
    barrier.wait();
    multiply(w.wide, layer.down, residual(kept));
  }

  // final norm, head, and the scheduler's update of the trajectory (see bac.solver)
  void read_out(int step, int sample_size) {
    const SolverRow& solve = m.solver[step];
    const int head_width = m.head.n;
    const int begin = row_begin(), count = row_end() - begin;
    layer_norm(w.x + size_t(begin) * m.d, normed, count, m.d, m.final_gain, m.final_shift, m.eps);
    product(normed, count, m.head, reinterpret_cast<uint32_t*>(narrow), 0, 1,
            [&](int row, int column, vf value) { store(head_out + size_t(row) * head_width + column, value); });
    for (int row = begin; row < row_end(); ++row) {
      const int token = row % m.tokens;
      if (token < m.skip) continue;
      const float* out = head_out + size_t(row - begin) * head_width;
      const size_t local = size_t(row / m.tokens) * sample_size + (token - m.skip) * m.d_in;
      const size_t at = size_t(first) * sample_size + local;
      const float* noise = c.noise[step];
      for (int i = 0; i < m.d_in; ++i) {
        const float x = c.trajectory[at + i];
        float clean = solve.x_gain * x + solve.m_gain * out[i];
        clean = clean < -m.clip ? -m.clip : clean > m.clip ? m.clip : clean;
        float next = solve.to_x * x + solve.to_x0 * clean + solve.to_m * out[i];
        if (solve.to_last != 0.0f && step > 0) next += solve.to_last * w.last[local + i];
        if (noise) next += solve.sigma * noise[at + i];
        w.last[local + i] = clean;
        c.trajectory[at + i] = next;
      }
    }
  }

  const Model& m;
  const Call& c;
  const int first, samples, rows;
  const Workspace w;
  Barrier& barrier;
  const int id, team, lanes;  // lanes: columns of the cross-attention, rounded up
  float *normed, *values, *scores, *column_bias, *head_keys, *weights, *head_out, *projected;
  float* narrow;  // activations in the format of the weights
};

}  // namespace
}  // namespace bac
