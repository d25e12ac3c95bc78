// The whole denoising loop: which phases run, and where all thread blocks wait for each other.
#pragma once
#include "condition.hpp"
#include "phases.hpp"

namespace bac {

// The thread blocks that run the loop here: on a GPU, and in the CPU form with threads, one; else all, one after another.
class Grid {
 public:
  BAC_FN Grid(Block* blocks, int count) : blocks(blocks), count(count) {}
  template <class F>
  BAC_FN void each(F phase) const {
    for (int i = 0; i < count; ++i) phase(blocks[i]);
  }
  BAC_FN void barrier() {
    cross_read = cross_written = false;
    passed += unsigned(blocks->blocks);
    if (kCopies == 1 || count != blocks->blocks) grid_barrier(blocks->team, blocks->p.barrier, passed);
  }
  // Since the last barrier, stored outputs of cross-attentions were read, or written. Alone among the blocks they may do both
  // without a barrier of their own between.
  bool cross_read = false, cross_written = false;

 private:
  Block* const blocks;
  const int count;
  unsigned passed = 0;  // what the barrier counts to
};

// Its last phase needs no barrier of its own: the self-attention of the first step comes before any cross-attention.
BAC_FN void encode_condition(Grid& grid) {
  grid.each([](const Block& b) { condition_hidden(b); });
  grid.barrier();
  grid.each([](const Block& b) { condition_tokens(b); });
  grid.barrier();
  grid.each([](const Block& b) { condition_keys_values(b); });
  grid.barrier();
  grid.each([](const Block& b) { condition_fold(b); });
}

BAC_FN void reuse(Grid& grid, int first, int stop, int step) {
  if (first >= stop) return;
  const bool cross = stop - first > 1 || first % 3 == 1;  // two blocks in a row may have one
  if (cross && grid.cross_written) grid.barrier();
  grid.each([=](const Block& b) { add_stored(b, first, stop, step); });
  grid.cross_read |= cross;
}

// One denoising step up to the read-out.
template <class W>
BAC_FN void denoise(Grid& grid, const Params& p, int step) {
  for (int i = p.segment_start[step]; i < p.segment_start[step + 1]; ++i) {
    const Segment segment = p.segments[i];
    // The block before, if it exchanged its output, is added like the stored ones that follow it.
    const bool exchanged = i > p.segment_start[step] && p.segments[i - 1].block % 3 != 1;
    reuse(grid, segment.start - exchanged, segment.stop, step);
    if (segment.block < 0) continue;
    const int layer = segment.block / 3, kind = segment.block % 3;
    if (kind == 1) {
      if (segment.store && grid.cross_read) grid.barrier();
      grid.each([=](const Block& b) { cross_attention(b, layer, step, segment); });
      grid.cross_written |= segment.store != 0;
      continue;
    }
    grid.each([=](const Block& b) {
      if (kind == 0) queries_keys_values(b, Weights<W>(b), layer);
      else hidden_units(b, Weights<W>(b), layer);
    });
    grid.barrier();
    grid.each([=](const Block& b) {
      if (kind == 0) attention_output(b, Weights<W>(b), layer, segment);
      else feed_forward_output(b, Weights<W>(b), layer, segment);
    });
    grid.barrier();
  }
}

template <class W>
BAC_FN void sample(Grid& grid, const Params& p) {
  grid.each([](const Block& b) {
    Weights<W>(b).load();
    b.team.each_item(b.p.tokens * b.p.numbers, [&](int i) { b.trajectory[i] = b.p.initial[i]; });
  });
  if (p.observed) encode_condition(grid);
  for (int step = 0; step < p.steps; ++step) {
    grid.each([](const Block& b) { embed(b); });
    denoise<W>(grid, p, step);
    grid.each([=](const Block& b) { read_out(b, step); });
  }
  grid.each([](const Block& b) {
    impose(b);  // by the thread that copies the same number below
    if (b.index == 0) b.team.each_item(b.p.tokens * b.p.numbers, [&](int i) { b.p.out[i] = b.trajectory[i]; });
  });
}

}  // namespace bac
