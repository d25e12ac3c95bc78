// The whole denoising loop: which phases run, and where thread blocks exchange what they have computed.
#pragma once
#include "condition.hpp"
#include "phases.hpp"

namespace bac {

// The thread blocks that run the loop here: on a GPU, and in the CPU form with threads, one; else all, one after another.
//
// Thread blocks do not wait for each other but for what they read. A buffer is written again only after something was read that
// every thread block sends after it has read the buffer: what follows in the order below.
class Grid {
 public:
  BAC_FN Grid(Block* blocks, int count) : blocks(blocks), count(count), flag(blocks->p.sent) {}
  template <class F>
  BAC_FN void each(F phase) const {
    for (int i = 0; i < count; ++i) phase(blocks[i]);
  }
  // All thread blocks see what any of them has written. One is in each launch at most.
  BAC_FN void barrier() const {
    if (kCopies == 1 || count != blocks->s.blocks) grid_barrier(blocks->team, blocks->p.barrier, blocks->p.passed + unsigned(blocks->s.blocks));
  }
  BAC_FN Segment segment(int step, int i) const { return blocks->segment(step, i); }

 private:
  Block* const blocks;
  const int count;

 public:
  unsigned flag;  // of the latest exchange
};

BAC_FN void encode_condition(Grid& grid) {
  const unsigned flag = grid.flag;
  grid.each([=](const Block& b) { condition_hidden(b, flag + 1); });
  grid.each([=](const Block& b) { condition_tokens(b, flag + 2); });
  grid.each([=](const Block& b) { condition_keys_values(b, flag + 3); });
  grid.each([=](const Block& b) { condition_fold(b, flag + 3); });
  grid.barrier();
  grid.flag += 3;
}

// One denoising step up to the read-out.
template <class W>
BAC_FN void denoise(Grid& grid, int step) {
  bool sent = false;  // the block before has sent its output
  for (int i = 0;; ++i) {
    const Segment segment = grid.segment(step, i);
    const unsigned flag = grid.flag;
    if (sent || segment.start < segment.stop) grid.each([=](const Block& b) { add_stored(b, segment, step, sent, flag); });
    if (segment.block < 0) return;
    const int layer = segment.block / 3, kind = segment.block % 3;
    grid.flag += 2;
    sent = kind != 1;
    if (kind == 0) {
      grid.each([=](const Block& b) { queries_keys_values(b, Weights<W>(b), layer, flag + 1); });
      grid.each([=](const Block& b) { attention_output(b, Weights<W>(b), layer, segment, flag + 2); });
    } else if (kind == 1) {
      grid.each([=](const Block& b) { cross_attention(b, layer, segment, flag + 2); });
    } else {
      grid.each([=](const Block& b) { hidden_units(b, Weights<W>(b), layer, flag + 1); });
      grid.each([=](const Block& b) { feed_forward_output(b, Weights<W>(b), layer, segment, flag + 2); });
    }
  }
}

template <class W>
BAC_FN void sample(Grid& grid, const Params& p) {
  grid.each([](const Block& b) {
    Weights<W>(b).load();
    fetch_plan(b, 0);
    b.team.each_item(b.s.tokens * b.s.numbers, [&](int i) { b.trajectory[i] = b.p.initial[i]; });
  });
  if (p.observed) encode_condition(grid);
  grid.each([](const Block& b) {
    arrived();
    b.team.sync();
  });
  for (int step = 0; step < p.steps; ++step) {
    grid.each([=](const Block& b) { embed(b, step); });
    denoise<W>(grid, step);
    grid.each([=](const Block& b) { read_out(b, step); });
  }
  grid.each([](const Block& b) {
    impose(b);  // by the thread that copies the same number below
    b.team.sync();
    if (b.index == 0) b.team.each_item(b.s.tokens * b.s.numbers, [&](int i) { b.p.out[i] = b.trajectory[i]; });
  });
}

}  // namespace bac
