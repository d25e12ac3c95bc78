// Maps of activations, [frame][pixel][channel], and the sizes that convolutions and pooling give them.
#pragma once
#include "formats.hpp"

namespace bac {
namespace {

struct Shape {
  int height, width;
  int pixels() const { return height * width; }
};

inline Shape window(Shape in, int size, int stride, int padding) {
  return {(in.height + 2 * padding - size) / stride + 1, (in.width + 2 * padding - size) / stride + 1};
}
inline Shape after(const Conv& conv, Shape in) { return window(in, conv.size, conv.stride, conv.padding); }

// Rounds n numbers to the nearest bfloat16; only for levels that multiply bfloat16.
inline void narrow(const float* x, uint16_t* to, size_t n) {
#if defined(BAC_BFLOAT)
  size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store_narrow(to + i, load(x + i));
  float rest[kWidth] = {};
  uint16_t narrow_rest[kWidth];
  std::memcpy(rest, x + i, (n - i) * sizeof(float));
  store_narrow(narrow_rest, load(rest));
  std::memcpy(to + i, narrow_rest, (n - i) * sizeof(uint16_t));
#else
  (void)x, (void)to, (void)n;
#endif
}

// memcpy, without a call for the few dozen bytes of a line of a patch: the last piece may overlap the one before.
inline void copy(char* to, const char* from, size_t bytes) {
  typedef char Piece __attribute__((vector_size(32), aligned(1), may_alias));
  constexpr size_t piece = sizeof(Piece), most = 8 * piece;
  if (bytes < piece || bytes > most) {
    std::memcpy(to, from, bytes);
    return;
  }
  for (size_t i = 0; i + piece < bytes; i += piece) *reinterpret_cast<Piece*>(to + i) = *reinterpret_cast<const Piece*>(from + i);
  *reinterpret_cast<Piece*>(to + bytes - piece) = *reinterpret_cast<const Piece*>(from + bytes - piece);
}

// Activations; and as bfloat16, where convolutions multiply such.
struct Map {
  float* wide;
  uint16_t* narrow;
  void put(size_t at, vf value) const {
    store(wide + at, value);
#if defined(BAC_BFLOAT)
    if (narrow) store_narrow(narrow + at, value);
#endif
  }
};

}  // namespace
}  // namespace bac
