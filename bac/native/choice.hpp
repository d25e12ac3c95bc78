// Which levels this library has, and which of them the processor and the system can run.
#pragma once
#include "level.hpp"
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace bac {
// A compiler that does not know a level's options leaves it out, and names the others to engine.cpp.
extern const Level level_baseline, level_avx2, level_avx512, level_avx512_bf16, level_amx, level_neon_dot, level_neon_bf16;
}  // namespace bac

namespace bac {
namespace {

bool fits(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

#if defined(__x86_64__)
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512_bf16() {  // leaf 7, subleaf 1: not every compiler knows it by name
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

// The tile unit: the system hands its registers out to processes that ask for them.
#if defined(BAC_EMULATE_AMX)
bool has_amx() { return has_avx512_bf16(); }
#elif defined(BAC_KNOWS_TILES)
bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned units = 1u << 22 | 1u << 24 | 1u << 25;  // bfloat16, tiles, bytes
  constexpr long request = 0x1023, tiles = 18;
  return has_avx512_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & units) == units && syscall(SYS_arch_prctl, request, tiles) == 0;
}
#endif

// Bytes are multiplied by an instruction set that is no level's own, see formats.hpp.
bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
bool has_avx512_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & 1u << 11);
}
#elif defined(__aarch64__) && defined(__APPLE__)
bool has_feature(const char* name) {
  int value = 0;
  size_t size = sizeof(value);
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value;
}
bool has_neon_dot() { return has_feature("hw.optional.arm.FEAT_DotProd"); }
bool has_neon_bf16() { return has_neon_dot() && has_feature("hw.optional.arm.FEAT_BF16"); }
#elif defined(__aarch64__) && defined(__linux__)
bool has_neon_dot() { return getauxval(AT_HWCAP) & 1ul << 20; }
bool has_neon_bf16() { return has_neon_dot() && (getauxval(AT_HWCAP2) & 1ul << 14); }
#elif defined(__aarch64__)
bool has_neon_dot() { return false; }
bool has_neon_bf16() { return false; }
#endif

// The levels of this library from the least to the most demanding; the system and the processor must both have what one uses.
// Asked once: in a virtual machine each question to the processor takes a while.
struct Choice {
  const Level* level;
  bool here, bytes;  // whether it can run, and whether it can multiply bytes if it was compiled for that
};
struct Levels {
  Choice all[8] = {};
  int32_t count = 0;
  void add(const Level& level, bool here, bool bytes) { all[count++] = {&level, here, bytes}; }
  Levels() {
    add(level_baseline, true, false);
#if defined(BAC_LEVEL_avx2)
    add(level_avx2, has_avx2(), has_avx_vnni());
#endif
#if defined(BAC_LEVEL_avx512)
    add(level_avx512, has_avx512(), has_avx512_vnni());
#endif
#if defined(BAC_LEVEL_avx512_bf16)
    add(level_avx512_bf16, has_avx512_bf16(), has_avx512_vnni());
#endif
#if defined(BAC_LEVEL_avx512_bf16) && defined(BAC_KNOWS_TILES)
    add(level_amx, has_amx(), true);
#endif
#if defined(BAC_LEVEL_neon_dot)
    add(level_neon_dot, has_neon_dot(), true);
#endif
#if defined(BAC_LEVEL_neon_bf16)
    add(level_neon_bf16, has_neon_bf16(), true);
#endif
  }
};
const Levels& levels() {
  static const Levels all;
  return all;
}
const Choice& choice(int32_t level) { return levels().all[level]; }
bool usable(int32_t level) { return fits(level, 0, levels().count - 1) && choice(level).here; }

// Whether a usable level multiplies weights of each format here.
struct Formats {
  explicit Formats(int32_t level) : of(choice(level)) {}
  bool operator[](int32_t format) const { return of.level->formats[format] && (format != kByte || of.bytes); }
  const Choice& of;
};

}  // namespace
}  // namespace bac
