// The structures that Python fills in, and how this compiler laid them out.
#pragma once
#include <cstddef>
#include <cstdint>

// Compilers that know the tile unit of Intel's processors, which is compiled into the level below it.
#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define BAC_KNOWS_TILES
#endif

namespace bac {

constexpr int32_t kAbi = 9;  // raised when an entry point or the meaning of a field changes; structs.py holds the same number
constexpr int32_t kMaxThreads = 1024;
constexpr int kLanes = 16;  // columns of a panel of weights; sizes are rounded up to them

// Formats of a packed matrix; structs.py holds the same numbers.
enum Format : int32_t { kFloat = 0, kHalf = 1, kBfloat = 2, kByte = 3, kFormats = 4 };

// A weight matrix [k, n] packed as n / 16 panels of [k][16], in bfloat16 of [k / 2][16][2], in bytes of [k / 4][16][4]; with a
// bias of n values. A byte q of column j stands for q * scale[j], and sums[j] is what its whole column adds up to.
struct Matrix {
  const char* data;
  const float *bias, *scale, *sums;
  int32_t n, k, format;
};

struct Layer {
  const float *norm1_gain, *norm1_shift, *norm2_gain, *norm2_shift, *norm3_gain, *norm3_shift;
  Matrix qkv, out, up, down;
  const float* cross_bias;   // [d] bias of the cross-attention output
  const float* time_key;     // [steps][heads][d] folded keys of the time token, or null
  const float* time_bias;    // [steps][heads]
  const float* time_value;   // [steps][heads][d]
  // Folding of the other condition tokens (bac.folding), where they are encoded one by one; else null.
  Matrix key_value;                       // [d][2 d]
  const Matrix *fold_query, *fold_out;    // [heads] of [d / heads][d]
  const float* query_bias;                // [d]
};

struct Segment {
  int32_t start, stop, block, store;  // block is -1 at the end of a step
  int32_t gap;  // steps since the block computed before, where the slope between the two outputs is needed; else 0
};

// One denoising step of the scheduler's arithmetic (see bac.solver).
struct SolverRow {
  float x_gain, m_gain, to_x, to_x0, to_last, to_m, sigma;
};

struct Model {
  int32_t layers, heads, d, d_in, d_out, tokens, skip, cross, steps, stores;  // skip: leading tokens without output (time token)
                                                                      // stores: whether any segment does
  float eps;
  const float* embed;        // [d_in][d]
  const float* position;     // [tokens][d], input bias included
  const float* time_rows;    // [steps][d] time token of the encoder-only form, or null
  const float* self_mask;    // [tokens][tokens rounded up to 16], 0 or -inf
  const float *final_gain, *final_shift;
  Matrix head;
  const Layer* layer;
  const Segment* segments;
  const int32_t* segment_start;  // [steps + 1]
  const SolverRow* solver;       // [steps]
  // Encoder of the condition tokens beside the time token, where they are encoded one by one: two linear layers with Mish
  // between them, on an embedding. Else without weights.
  Matrix cond_embed, cond_up, cond_down;  // [numbers of an observation][d], [d][4 d], [4 d][d]
  const float* cond_position;             // [tokens at most][d]
  int32_t cond_tokens;                    // at most
  const float* ahead;            // [steps][blocks] steps that a stored output is extrapolated by, or null: all are held
  float clip;
};

// One call. Condition tokens other than the time token: `memory` of them for each sample, either to be encoded and folded
// here (observation), or folded, per slot.
struct Call {
  int32_t batch, memory, threads, level;
  const float* observation;    // [batch][memory][cond_embed.k], or null
  const int32_t* memory_slot;  // [layers][steps] slot of the tables below, -1 where the block does not compute
  const float* key;            // [slots][batch][memory][heads][d]
  const float* bias;           // [slots][batch][memory][heads]
  const float* value;          // [slots][batch][memory][heads][d]
  const float* cross_mask;     // [tokens][time + memory]
  float* trajectory;           // [batch][tokens - skip][d_in], in: initial noise, out: sample
  const float* const* noise;   // [steps] pointers to [batch][tokens - skip][d_in], or null
  const float* condition;      // same shape, or null
  const uint8_t* given;        // same shape, or null
};

// Vision encoder: a ResNet with two convolutions per block, spatial softmax, one linear layer, ReLU; one for each camera.
// Normalisation over groups of channels, a multiple of 16 each; without groups, gain and shift of each channel alone.
struct Norm {
  const float *gain, *shift;
  int32_t groups;
  float eps;
};

// A convolution [size * size * in, out] with square kernels, its rows ordered (kernel row, kernel column, channel) and padded
// with zeros to an even number; and the normalisation after it. With a tile (3x3 kernels, stride 1, channels a multiple of 16)
// the rows are the kernels' values at its points (winograd.hpp), [(tile + 2)^2 * in, out] in the order (point, channel).
struct Conv {
  Matrix weight;
  Norm norm;
  int32_t channels, size, stride, padding;  // channels: of its input
  int32_t tile;                             // outputs of a tile's line, 2 or 4, or 0
};

struct Residual {
  Conv first, second, shortcut;  // shortcut: without weights where the block's input is added as it is
};

struct Camera {
  int32_t channels, height, width;                 // of its images
  int32_t top, left, crop_height, crop_width;      // the part that is looked at
  int32_t pool, pool_stride, pool_padding;         // max pooling after the first convolution
  Conv stem;
  int32_t blocks;
  const Residual* block;
  Matrix keypoint;                // [channels of the last block][key points], rounded up to 16
  const float *column, *row;      // [pixels of the feature map] positions in the image
  float inverse_temperature;
  int32_t keypoints;
  Matrix linear;                  // [2 key points][features]
  int32_t features, at;           // numbers this camera gives, and where they lie in a row of the output
};

struct Encoder {
  int32_t cameras, width;  // width: numbers of an output row
  const Camera* camera;
};

// One call: `frames` images of every camera.
struct Frames {
  int32_t frames, threads, level;
  const float* const* image;  // [cameras] pointers to normalised images [frames][channels][height][width]
  float* out;                 // [frames][width]; what is not a camera's is left alone
};

// Sizes and offsets as this compiler laid them out; bac.native.structs lists the same from its mirror.
constexpr int32_t kLayout[] = {
    kAbi, kLanes,
    sizeof(Matrix), offsetof(Matrix, data), offsetof(Matrix, bias), offsetof(Matrix, scale), offsetof(Matrix, sums), offsetof(Matrix, n), offsetof(Matrix, k), offsetof(Matrix, format),
    sizeof(Layer), offsetof(Layer, norm1_gain), offsetof(Layer, norm1_shift), offsetof(Layer, norm2_gain), offsetof(Layer, norm2_shift),
    offsetof(Layer, norm3_gain), offsetof(Layer, norm3_shift), offsetof(Layer, qkv), offsetof(Layer, out), offsetof(Layer, up),
    offsetof(Layer, down), offsetof(Layer, cross_bias), offsetof(Layer, time_key), offsetof(Layer, time_bias), offsetof(Layer, time_value),
    offsetof(Layer, key_value), offsetof(Layer, fold_query), offsetof(Layer, fold_out), offsetof(Layer, query_bias),
    sizeof(Segment), offsetof(Segment, start), offsetof(Segment, stop), offsetof(Segment, block), offsetof(Segment, store),
    offsetof(Segment, gap),
    sizeof(SolverRow), offsetof(SolverRow, x_gain), offsetof(SolverRow, m_gain), offsetof(SolverRow, to_x), offsetof(SolverRow, to_x0),
    offsetof(SolverRow, to_last), offsetof(SolverRow, to_m), offsetof(SolverRow, sigma),
    sizeof(Model), offsetof(Model, layers), offsetof(Model, heads), offsetof(Model, d), offsetof(Model, d_in), offsetof(Model, d_out),
    offsetof(Model, tokens), offsetof(Model, skip), offsetof(Model, cross), offsetof(Model, steps), offsetof(Model, stores),
    offsetof(Model, eps),
    offsetof(Model, embed), offsetof(Model, position), offsetof(Model, time_rows), offsetof(Model, self_mask), offsetof(Model, final_gain),
    offsetof(Model, final_shift), offsetof(Model, head), offsetof(Model, layer), offsetof(Model, segments), offsetof(Model, segment_start),
    offsetof(Model, solver), offsetof(Model, cond_embed), offsetof(Model, cond_up), offsetof(Model, cond_down),
    offsetof(Model, cond_position), offsetof(Model, cond_tokens), offsetof(Model, ahead), offsetof(Model, clip),
    sizeof(Call), offsetof(Call, batch), offsetof(Call, memory), offsetof(Call, threads),
    offsetof(Call, level), offsetof(Call, observation), offsetof(Call, memory_slot), offsetof(Call, key),
    offsetof(Call, bias), offsetof(Call, value), offsetof(Call, cross_mask), offsetof(Call, trajectory), offsetof(Call, noise),
    offsetof(Call, condition), offsetof(Call, given),
    sizeof(Norm), offsetof(Norm, gain), offsetof(Norm, shift), offsetof(Norm, groups), offsetof(Norm, eps),
    sizeof(Conv), offsetof(Conv, weight), offsetof(Conv, norm), offsetof(Conv, channels), offsetof(Conv, size), offsetof(Conv, stride),
    offsetof(Conv, padding), offsetof(Conv, tile),
    sizeof(Residual), offsetof(Residual, first), offsetof(Residual, second), offsetof(Residual, shortcut),
    sizeof(Camera), offsetof(Camera, channels), offsetof(Camera, height), offsetof(Camera, width), offsetof(Camera, top),
    offsetof(Camera, left), offsetof(Camera, crop_height), offsetof(Camera, crop_width), offsetof(Camera, pool),
    offsetof(Camera, pool_stride), offsetof(Camera, pool_padding), offsetof(Camera, stem), offsetof(Camera, blocks),
    offsetof(Camera, block), offsetof(Camera, keypoint), offsetof(Camera, column), offsetof(Camera, row),
    offsetof(Camera, inverse_temperature), offsetof(Camera, keypoints), offsetof(Camera, linear), offsetof(Camera, features),
    offsetof(Camera, at),
    sizeof(Encoder), offsetof(Encoder, cameras), offsetof(Encoder, width), offsetof(Encoder, camera),
    sizeof(Frames), offsetof(Frames, frames), offsetof(Frames, threads), offsetof(Frames, level), offsetof(Frames, image),
    offsetof(Frames, out),
};

}  // namespace bac
