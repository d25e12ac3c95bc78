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

#if defined(__AVX512BF16__)
// Rounds a vector to the nearest bfloat16.
inline void store_narrow(uint16_t* to, vf value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(value))));
}
#endif

// Activations; and as bfloat16, where convolutions multiply such.
struct Map {
  float* wide;
  uint16_t* narrow;
  void put(size_t at, vf value) const {
    store(wide + at, value);
#if defined(__AVX512BF16__)
    if (narrow) store_narrow(narrow + at, value);
#endif
  }
};

}  // namespace
}  // namespace bac
