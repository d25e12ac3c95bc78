// What the kernel is given. bac/native/gpu/structs.py holds the same fields in the same order.
//
// The denoiser is a pre-norm decoder whose condition tokens are encoded one by one (see bac.folding). Shapes are those of
// one sample: T tokens, width D, H heads, E numbers of a token, L layers, 3 L blocks, K steps, S observed condition tokens.
// Activations lie in quads: three tokens of one column and a fourth number that says when they were sent (see machine.hpp).
#pragma once

namespace bac {

#ifndef BAC_GROUPS
#error "compile with -DBAC_GROUPS=<groups of three tokens>"
#endif
#ifndef BAC_WARPS
#define BAC_WARPS 16
#endif

constexpr int kGroups = BAC_GROUPS;          // G
constexpr int kTile = 3 * kGroups;           // T and S at most
constexpr int kStride = kGroups | 1;         // quads from a column to the next in shared memory: odd, for its banks
constexpr int kWarps = BAC_WARPS;            // of a thread block
constexpr int kLanes = 32;
constexpr int kThreads = kWarps * kLanes;
constexpr int kPart = kWarps * kLanes;       // quads of partial sums

// A run of stored outputs that are added, then at most one block that computes (see bac.plan.Segment).
struct alignas(16) Segment {
  int start, stop, block, gap;
  int store;                   // 1: the output is reused; 2: the run's sum is kept; 4: it is the one that was kept
  int cross, cross_step;       // layer of the cross-attention that computes next, before any other block, and its step; else -1
  int unused;
};

// The head of a step's row of the plan: one row of the solver's table (see bac.solver), and which draw is added, or -1.
struct alignas(16) Step {
  float x_gain, m_gain, to_x, to_x0, to_last, to_m, sigma;
  int noise;
};

struct alignas(16) Quad {
  float x, y, z, w;
};

struct Params {
  int layers, heads, width, numbers, tokens, observed, observation_width, steps;
  int half;             // weights are in half precision, else float
  int resident;         // bytes of weights that a thread block keeps in shared memory
  int scratch;          // bytes of shared memory beside them
  int groups;           // kGroups of the caller
  int blocks;           // thread blocks
  int causal;           // a token's self-attention sees itself and all earlier ones
  float eps, clip;

  const char* weights;      // share of each thread block after the other, see `Weights` of block.hpp
  const float* bias;        // [L][9 D]: of qkv, output, up and down
  const float* norms;       // [L][3][2][D]: gain and shift
  const float* cross_bias;  // [L][D]
  const float* embed;       // [E][D]
  const Quad* position;     // [G][D] with the bias of the embedding
  const float *final_norm, *head, *head_bias;  // [2][D], [E][D], [E]
  const float *self_mask, *cross_mask;      // [T][T], [T][1 + S]
  const float *time_key, *time_bias, *time_value;  // [L][K][H][D], [L][K][H], [L][K][H][D]

  // Encoder of the observed tokens and their folding; null where there are none.
  const float *cond_embed, *cond_position;  // [D][numbers of an observation], [S][D] with the bias
  const float *cond_up, *cond_up_bias, *cond_down, *cond_down_bias;  // [4 D][D], [4 D], [D][4 D], [D]
  const float *key_value, *key_value_bias;  // [L][2 D][D], [L][2 D]
  const float *fold_query, *query_bias, *fold_out;  // [L][H][D / H][D], [L][D], [L][H][D / H][D]

  const Quad* plan;          // [K + 1][row]: a Step, then 3 L + 1 Segments; the row of step K is not used
  const float* ahead;        // [K][3 L] steps by which a stored output is extrapolated, or null

  // One call.
  const float* observation;      // [S][numbers], or null
  const float* initial;          // [T][E] noise
  const float* noise;            // [draws][noise_stride]
  const float* known;            // [T][E], or null
  const unsigned char* given;    // [T][E] where the trajectory is known, or null
  float* out;                    // [T][E]
  int noise_stride;              // numbers of a draw
  unsigned sent;                 // flag of the last exchange of the launch before
  unsigned passed;               // what the barrier has counted before

  // Exchange between thread blocks, in global memory.
  Quad *stored, *slopes;         // [2 L][G][D] outputs of self-attentions and feed-forward blocks; their slopes per step, or null
  Quad *cross, *cross_slopes;    // [thread blocks][L][G][D] outputs of cross-attentions, which every thread block has its own of
  Quad* wide;                    // [G][4 D] qkv or hidden units
  Quad *token, *projected;       // [G][D] encoded tokens; [G][L 2 D] keys and values
  float *key, *key_bias, *value; // [L][S][H][D], [L][S][H], [L][S][H][D] folded
  unsigned* barrier;
};

#if defined(__CUDACC__)
#define BAC_FN __device__ __forceinline__
#else
#define BAC_FN inline
#endif

// Sizes of the model: constants where the kernel is compiled for one, else read from its parameters.
struct Sizes {
#if defined(BAC_WIDTH)
  BAC_FN explicit Sizes(const Params&) {}
  static constexpr int layers = BAC_LAYERS, heads = BAC_HEADS, width = BAC_WIDTH, numbers = BAC_NUMBERS;
  static constexpr int tokens = BAC_TOKENS, observed = BAC_OBSERVED, blocks = BAC_BLOCKS, causal = BAC_CAUSAL, slopes = BAC_SLOPES;
  static constexpr int kColumns = (width + kLanes - 1) / kLanes;  // of a lane
#else
  BAC_FN explicit Sizes(const Params& p)
      : layers(p.layers), heads(p.heads), width(p.width), numbers(p.numbers), tokens(p.tokens), observed(p.observed), blocks(p.blocks), causal(p.causal), slopes(p.slopes != nullptr) {}
  const int layers, heads, width, numbers, tokens, observed, blocks, causal, slopes;
  static constexpr int kColumns = 32;
#endif
  BAC_FN int each() const { return width / heads; }          // numbers of a head
  BAC_FN int count() const { return 1 + observed; }          // condition tokens
  BAC_FN int columns() const { return heads * count(); }     // of the folded cross-attention
};

}  // namespace bac
