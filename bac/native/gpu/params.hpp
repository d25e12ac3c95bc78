// What the kernel is given. bac/native/gpu/structs.py holds the same fields in the same order.
//
// The denoiser is a pre-norm decoder whose condition tokens are encoded one by one (see bac.folding). Shapes are those of
// one sample: T tokens, width D, H heads, E numbers of a token, L layers, 3 L blocks, K steps, S observed condition tokens.
#pragma once

namespace bac {

#ifndef BAC_TILE
#error "compile with -DBAC_TILE=<tokens that a thread sums at once>"
#endif
#ifndef BAC_WARPS
#define BAC_WARPS 16
#endif

constexpr int kTile = BAC_TILE;              // T at most: buffers of activations have so many rows
constexpr int kWarps = BAC_WARPS;            // of a thread block
constexpr int kLanes = 32;
constexpr int kThreads = kWarps * kLanes;
constexpr int kRowsAtOnce = 2 * kWarps;      // rows of weights whose partial sums are kept at once

// A run of stored outputs that are added, then at most one block that computes (see bac.plan.Segment).
struct Segment {
  int start, stop, block, gap, store;
};

// One row of a solver's table (see bac.solver).
struct SolverRow {
  float x_gain, m_gain, to_x, to_x0, to_last, to_m, sigma;
};

struct Params {
  int layers, heads, width, numbers, tokens, observed, observation_width, steps;
  int half;             // weights are in half precision, else float
  int resident;         // bytes of weights that a thread block keeps in shared memory
  int scratch;          // bytes of shared memory beside them
  int tile;             // kTile of the caller
  int causal;           // a token's self-attention sees itself and earlier ones at most
  float eps, clip;

  const char* weights;      // share of each thread block after the other, see `Weights` of block.hpp
  const float* bias;        // [L][9 D]: of qkv, output, up and down
  const float* norms;       // [L][3][2][D]: gain and shift
  const float* cross_bias;  // [L][D]
  const float *embed, *position;            // [E][D], [T][D] with the bias of the embedding
  const float *final_norm, *head, *head_bias;  // [2][D], [E][D], [E]
  const float *self_mask, *cross_mask;      // [T][T], [T][1 + S]
  const float *time_key, *time_bias, *time_value;  // [L][K][H][D], [L][K][H], [L][K][H][D]

  // Encoder of the observed tokens and their folding; null where there are none.
  const float *cond_embed, *cond_position;  // [D][numbers of an observation], [S][D] with the bias
  const float *cond_up, *cond_up_bias, *cond_down, *cond_down_bias;  // [4 D][D], [4 D], [D][4 D], [D]
  const float *key_value, *key_value_bias;  // [L][2 D][D], [L][2 D]
  const float *fold_query, *query_bias, *fold_out;  // [L][H][D / H][D], [L][D], [L][H][D / H][D]

  const Segment* segments;
  const int* segment_start;  // [K + 1]
  const SolverRow* solver;   // [K]
  const float* ahead;        // [K][3 L] steps by which a stored output is extrapolated, or null
  const int* noise_row;      // [K] row of `noise` that a step adds, or -1

  // One call.
  const float* observation;      // [S][numbers], or null
  const float* initial;          // [T][E] noise
  const float* noise;            // [draws][noise_stride]
  const float* known;            // [T][E], or null
  const unsigned char* given;    // [T][E] where the trajectory is known, or null
  float* out;                    // [T][E]
  int noise_stride;              // numbers of a draw

  // Exchange between thread blocks, in global memory.
  float *stored, *slopes;        // [3 L][T][D] branch outputs, and their slopes per step, or null
  float* wide;                   // [kTile][4 D] qkv or hidden units
  float *token, *projected;      // [kTile][D] encoded tokens; [L][2 D][kTile] keys and values
  float *key, *key_bias, *value; // [L][S][H][D], [L][S][H], [L][S][H][D] folded
  unsigned* barrier;             // 0 before the launch
};

}  // namespace bac
