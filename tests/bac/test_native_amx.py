"""The tile unit, emulated and real: its products are those of plain loops, whatever their shape."""

import subprocess

import pytest

from bac.native import build, compiler
from bac.native.levels import usable_levels
from tests.bac.tiny_policies import needs_compiler

pytestmark = needs_compiler

PROGRAM = r"""
#include <cstdio>
#include <random>
#include <vector>
#include "choice.hpp"
#include "product.hpp"
using namespace bac;

static std::mt19937 random_bits(1);
// A bfloat16 between -1 and 1.
static float fraction() {
  const float x = float(random_bits() % 2001) / 1000 - 1;
  uint32_t bits;
  std::memcpy(&bits, &x, 4), bits &= 0xffff0000u;
  float rounded;
  std::memcpy(&rounded, &bits, 4);
  return rounded;
}

// The largest difference between a packed product and plain loops, in all of its shapes.
template <class W>
static double worst() {
  double most = 0;
  use_unit(true);
  for (int depth : {4, 16, 67})
    for (int panels : {1, 5})
      for (int rows : {1, 9, 17}) {
        const int k = depth * W::kDepth, n = panels * kLanes;
        std::vector<float> a(rows * k), b(k * n), out(rows * n), expected(rows * n);
        for (float& x : a) x = W::kDepth == 4 ? float(random_bits() % 256) : fraction();
        for (float& x : b) x = W::kDepth == 4 ? float(int(random_bits() % 255) - 127) : fraction();
        std::vector<char> left(size_t(rows) * k * 4 / W::kDepth), right(size_t(k) * n * 4 / W::kDepth);
        auto put = [](std::vector<char>& to, size_t at, float x) {
          if (W::kDepth == 4) to[at] = char(int(x));
          else std::memcpy(&to[2 * at], reinterpret_cast<const char*>(&x) + 2, 2);
        };
        for (size_t i = 0; i < a.size(); ++i) put(left, i, a[i]);
        for (int j = 0; j < n; ++j)
          for (int i = 0; i < k; ++i)
            put(right, ((size_t(j / kLanes) * depth + i / W::kDepth) * kLanes + j % kLanes) * W::kDepth + i % W::kDepth,
                b[i * n + j]);
        for (int row = 0; row < rows; ++row)
          for (int i = 0; i < k; ++i)
            for (int j = 0; j < n; ++j) expected[row * n + j] += a[row * k + i] * b[i * n + j];
        const Matrix w{right.data(), nullptr, nullptr, nullptr, n, k, W::kDepth == 4 ? kByte : kBfloat};
        for (int worker = 0; worker < 2; ++worker)
          packed_product<W>(reinterpret_cast<const uint32_t*>(left.data()), depth, rows, w, worker, 2,
                            [&](int row, int column, vf value) { store(&out[row * n + column], value); });
        for (size_t i = 0; i < out.size(); ++i) most = std::max(most, double(std::abs(out[i] - expected[i])));
      }
  release_unit();
  return most;
}

int main() {
  if (!has_amx()) return 1;
  std::printf("%g %g\n", worst<ByteWeights>(), worst<BfloatWeights>());
}
"""


@pytest.mark.parametrize("emulated", [True, False], ids=["emulated", "real"])
def test_products_on_tiles(emulated, tmp_path):
    names = {level.name for level in usable_levels(build.library())}
    if ("avx512_bf16" if emulated else "amx") not in names:
        pytest.skip("this processor lacks what is needed")
    options = compiler.levels()["avx512_bf16"]
    (tmp_path / "check.cpp").write_text(PROGRAM)
    flags = [
        "-O1",
        "-std=c++17",
        "-Wno-unused-function",
        f"-I{build.FOLDER}",
        *(["-DBAC_EMULATE_AMX"] if emulated else []),
    ]
    call = [*compiler.find_compiler(), *flags, *options, str(tmp_path / "check.cpp"), "-o", str(tmp_path / "check")]
    subprocess.run(call, check=True)
    run = subprocess.run([tmp_path / "check"], capture_output=True, check=True)
    bytes_apart, bfloats_apart = map(float, run.stdout.split())
    assert bytes_apart == 0 and bfloats_apart < 1e-3
