// AVX-512 with VBMI2 (Intel from Ice Lake, AMD from Zen 4 on): one instruction expands 32 values.
#include "path.h"

#include <cstring>

#if defined(__AVX512VBMI2__)

#include <immintrin.h>

namespace {

using Vector = __m512;
constexpr int Lanes = 16;
constexpr int RowsAtOnce = 1;  // two streams of values at once were slower

inline Vector zero() { return _mm512_setzero_ps(); }
inline Vector load(const float *p) { return _mm512_loadu_ps(p); }
inline Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline float total_of(Vector a) { return _mm512_reduce_add_ps(a); }

inline __m512i expand16(const void *values, uint64_t bits) {
  return _mm512_maskz_expand_epi16(static_cast<__mmask32>(bits), _mm512_loadu_si512(values));
}

struct Fp16 {
  using Value = uint16_t;
  static constexpr int Group = 32, Vectors = 2;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    const __m512i all = expand16(values, bits);
    out[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(all));
    out[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(all, 1));
  }
  static void ordered(const Value *values, uint64_t bits, float *to) {
    Vector out[2];
    floats(values, bits, out);
    for (int v = 0; v < 2; ++v) _mm512_storeu_ps(to + v * Lanes, out[v]);
  }
  static void same(const Value *values, uint64_t bits, Value *to) {
    _mm512_storeu_si512(to, expand16(values, bits));
  }
};

struct Bf16 : Fp16 {
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    const __m512i all = expand16(values, bits);
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(all));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(all, 1));
    out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(low, 16));
    out[1] = _mm512_castsi512_ps(_mm512_slli_epi32(high, 16));
  }
  static void ordered(const Value *values, uint64_t bits, float *to) {
    Vector out[2];
    floats(values, bits, out);
    for (int v = 0; v < 2; ++v) _mm512_storeu_ps(to + v * Lanes, out[v]);
  }
};

struct Fp32 {
  using Value = float;
  static constexpr int Group = 16, Vectors = 1;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    out[0] = _mm512_maskz_expand_ps(static_cast<__mmask16>(bits), _mm512_loadu_ps(values));
  }
  static void ordered(const Value *values, uint64_t bits, float *to) {
    Vector out[1];
    floats(values, bits, out);
    _mm512_storeu_ps(to, out[0]);
  }
  static void same(const Value *values, uint64_t bits, Value *to) { ordered(values, bits, to); }
};

struct Int8 {
  using Value = int8_t;
  static constexpr int Group = 64, Vectors = 4;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    const __m512i all = _mm512_maskz_expand_epi8(bits, _mm512_loadu_si512(values));
    const __m128i parts[4] = {
        _mm512_castsi512_si128(all), _mm512_extracti32x4_epi32(all, 1),
        _mm512_extracti32x4_epi32(all, 2), _mm512_extracti32x4_epi32(all, 3)};
    for (int v = 0; v < 4; ++v) out[v] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(parts[v]));
  }
  static void ordered(const Value *values, uint64_t bits, float *to) {
    Vector out[4];
    floats(values, bits, out);
    for (int v = 0; v < 4; ++v) _mm512_storeu_ps(to + v * Lanes, out[v]);
  }
};

#include "rows.h"

bool available() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("popcnt") &&
         __builtin_cpu_supports("bmi2");
}

}  // namespace

namespace owled {
extern const Path avx512 = OWLED_PATH("avx512", available);
}

#else

namespace owled {
extern const Path avx512 = {"avx512", [] { return false; }, {}, {}, {}};
}

#endif
