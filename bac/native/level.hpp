// A level: the denoising loop compiled for some instruction sets. A library holds several and chooses when it is called.
#pragma once
#include "crew.hpp"
#include "layout.hpp"

namespace bac {

// Samples that one thread takes through the loop together: enough rows to reuse each weight it reads, few enough that
// their activations and stored outputs stay in its second-level cache.
constexpr int kGroup = 8;

struct Level {
  const char* name;
  bool formats[kFormats];  // of weights, by Format
  // Denoises call.batch samples on call.threads threads of the crew, in place.
  void (*sample)(const Model&, const Call&, Crew&);
  // Multiplies a tile of weights of a format that it has, `bytes` of them at `weights`, `rounds` times; gives the operations done.
  double (*multiply)(Format, const char* weights, size_t bytes, int rounds, float* out);
  // Reads `bytes` at `weights`, `rounds` times; gives a number that depends on all of them.
  float (*read)(const char* weights, size_t bytes, int rounds);
};

}  // namespace bac
