// Products on the tile unit of Intel's processors (AMX), of bytes and of bfloat16: 16 rows times 16 columns at once, 64 bytes of
// each row in one instruction. Panels of weights are what its tiles hold, as they lie. It is part of the level above which it
// stands, as a choice: BAC_UNIT names its instruction sets for the functions that use it.
#pragma once
#include "formats.hpp"

#if defined(__AVX512BF16__) && defined(BAC_KNOWS_TILES)
#define BAC_AMX
#define BAC_UNIT gnu::target("amx-tile,amx-int8,amx-bf16")
#endif

namespace bac {
namespace {

constexpr int kUnitRows = 16, kUnitPanels = 4;  // of a register tile, with 64 bytes of a row at a time

#if defined(BAC_AMX)
// Shapes of the eight tiles: 0 to 3 sums, 4 input, 5 weights; 6 and 7 the last input and weights of a row that is no multiple.
struct alignas(64) Shapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

#if defined(BAC_EMULATE_AMX)
// The unit in plain code, to test what uses it on processors without one.
struct Unit {
  Shapes shapes;
  alignas(64) uint8_t tile[8][1024];
};
inline thread_local Unit unit;
inline void tile_configure(const Shapes& shapes) { unit.shapes = shapes; }
inline void tile_done() { unit.shapes = Shapes{}; }
inline void tile_clear(int t) { std::memset(unit.tile[t], 0, sizeof(unit.tile[t])); }
inline void tile_read(int t, const void* from, long stride) {
  tile_clear(t);
  for (int row = 0; row < unit.shapes.rows[t]; ++row)
    std::memcpy(unit.tile[t] + 64 * row, static_cast<const char*>(from) + row * stride, unit.shapes.bytes[t]);
}
inline void tile_write(int t, void* to, long stride) {
  for (int row = 0; row < unit.shapes.rows[t]; ++row)
    std::memcpy(static_cast<char*>(to) + row * stride, unit.tile[t] + 64 * row, unit.shapes.bytes[t]);
}
template <class Sum, class Add>
inline void tile_each(int to, int a, int b, Add&& add) {
  for (int row = 0; row < unit.shapes.rows[a]; ++row)
    for (int k = 0; k < unit.shapes.rows[b]; ++k)
      for (int column = 0; column < 16; ++column)
        add(reinterpret_cast<Sum*>(unit.tile[to])[16 * row + column], unit.tile[a] + 64 * row + 4 * k, unit.tile[b] + 64 * k + 4 * column);
}
inline void tile_bytes(int to, int a, int b) {
  tile_each<int32_t>(to, a, b, [](int32_t& sum, const uint8_t* x, const uint8_t* w) {
    for (int i = 0; i < 4; ++i) sum += int32_t(x[i]) * int8_t(w[i]);
  });
}
inline void tile_bfloats(int to, int a, int b) {
  tile_each<float>(to, a, b, [](float& sum, const uint8_t* x, const uint8_t* w) {
    for (int i = 0; i < 2; ++i) {
      uint32_t bits[2] = {};
      std::memcpy(reinterpret_cast<char*>(bits) + 2, x + 2 * i, 2), std::memcpy(reinterpret_cast<char*>(bits + 1) + 2, w + 2 * i, 2);
      float factor[2];
      std::memcpy(factor, bits, sizeof(bits));
      sum += factor[0] * factor[1];
    }
  });
}
#else
// Intrinsics take the number of a tile as it is written.
#define tile_configure(shapes) _tile_loadconfig(&(shapes))
#define tile_done() _tile_release()
#define tile_clear(t) _tile_zero(t)
#define tile_read(t, from, stride) _tile_loadd(t, from, stride)
#define tile_write(t, to, stride) _tile_stored(t, to, stride)
#define tile_bytes(to, a, b) _tile_dpbusd(to, a, b)
#define tile_bfloats(to, a, b) _tile_dpbf16ps(to, a, b)
#endif

// Whether this thread uses the unit, and what its tiles are shaped for; other code may shape them anew between two calls of
// the library.
inline thread_local bool unit_on = false;
inline thread_local int unit_rows = 0, unit_rest = 0;

[[BAC_UNIT]] inline void shape_unit(int rows, int rest) {
  if (rows == unit_rows && rest == unit_rest) return;
  unit_rows = rows, unit_rest = rest;
  Shapes shapes;
  auto shape = [&](int tile, int count, int bytes) { shapes.rows[tile] = uint8_t(count), shapes.bytes[tile] = uint16_t(bytes); };
  for (int sum = 0; sum < kUnitPanels; ++sum) shape(sum, rows, 64);
  shape(4, rows, 64), shape(5, 16, 64);
  if (rest) shape(6, rows, 4 * rest), shape(7, rest, 64);
  tile_configure(shapes);
}

// To be called when a thread is done: tiles in use make each change of threads dearer.
[[BAC_UNIT]] inline void release_unit() {
  if (unit_rows) tile_done();
  unit_rows = unit_rest = 0, unit_on = false;
}
inline void use_unit(bool use) { unit_on = use; }

// As `tile` of product.hpp, for a number of rows and panels that only the call knows.
#define BAC_PANELS(what) what(0) what(1) what(2) what(3)
#define BAC_CLEAR(v) \
  if (v < panels) tile_clear(v);
#define BAC_MULTIPLY(v)                               \
  if (v < panels) {                                   \
    tile_read(5, p + v * panel_step + 1024L * block, 64); \
    if constexpr (W::kDepth == 4) {                   \
      tile_bytes(v, 4, 5);                            \
    } else {                                          \
      tile_bfloats(v, 4, 5);                          \
    }                                                 \
  }
#define BAC_LAST(v)                                    \
  if (v < panels) {                                    \
    tile_read(7, p + v * panel_step + 1024L * blocks, 64); \
    if constexpr (W::kDepth == 4) {                    \
      tile_bytes(v, 6, 7);                             \
    } else {                                           \
      tile_bfloats(v, 6, 7);                           \
    }                                                  \
  }
#define BAC_WRITE(v) \
  if (v < panels) tile_write(v, sums + v * kLanes, long(sizeof(float)) * kUnitPanels * kLanes);

template <class W>
[[gnu::noinline, BAC_UNIT]] void unit_tile(const uint32_t* a, long lda, int rows, const char* p, long panel_step, int panels, int depth, float* out) {
  const int blocks = depth / 16, rest = depth % 16;
  alignas(64) float sums[kUnitRows * kUnitPanels * kLanes];
  shape_unit(rows, rest);
  BAC_PANELS(BAC_CLEAR)
  for (int block = 0; block < blocks; ++block) {
    tile_read(4, a + 16 * block, 4 * lda);
    BAC_PANELS(BAC_MULTIPLY)
  }
  if (rest) {
    tile_read(6, a + 16 * blocks, 4 * lda);
    BAC_PANELS(BAC_LAST)
  }
  BAC_PANELS(BAC_WRITE)
  for (int row = 0; row < rows; ++row)
    for (int i = 0; i < panels * kLanes; i += kWidth, out += kWidth) {
      const float* sum = sums + row * kUnitPanels * kLanes + i;
      store(out, W::value(*reinterpret_cast<const typename W::Sum*>(sum)));
    }
}
#else
inline void release_unit() {}
inline void use_unit(bool) {}
#endif

}  // namespace
}  // namespace bac
