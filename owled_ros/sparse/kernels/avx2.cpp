// AVX2 with FMA and F16C (any x86-64 computer since 2013): eight columns at a time, their values
// put into place by a byte shuffle that is looked up for each byte of the mask.
#include "path.h"

#include <cstring>

#if defined(__AVX2__) && defined(__F16C__) && defined(__FMA__)

#include <immintrin.h>

#include "places.h"

namespace {

using Vector = __m256;
constexpr int Lanes = 8;
constexpr int RowsAtOnce = 2;  // one waits for its own sum: 1.3 to 1.6 times faster
constexpr auto places16 = owled::byte_places<2>();
constexpr auto places8 = owled::byte_places<1>();

inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector load(const float *p) { return _mm256_loadu_ps(p); }
inline Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline float total_of(Vector a) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

inline __m128i expand16(const void *values, uint64_t bits) {
  const __m128i places = _mm_load_si128(reinterpret_cast<const __m128i *>(places16.of[bits]));
  return _mm_shuffle_epi8(_mm_loadu_si128(static_cast<const __m128i *>(values)), places);
}

template <class E>
struct Ordered {
  static constexpr int Group = 8, Vectors = 1;
  template <class Value>
  static void ordered(const Value *values, uint64_t bits, float *to) {
    Vector out[1];
    E::floats(values, bits, out);
    _mm256_storeu_ps(to, out[0]);
  }
};

struct Fp16 : Ordered<Fp16> {
  using Value = uint16_t;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    out[0] = _mm256_cvtph_ps(expand16(values, bits));
  }
  static void same(const Value *values, uint64_t bits, Value *to) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), expand16(values, bits));
  }
};

struct Bf16 : Ordered<Bf16> {
  using Value = uint16_t;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    const __m256i wide = _mm256_cvtepu16_epi32(expand16(values, bits));
    out[0] = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static void same(const Value *values, uint64_t bits, Value *to) { Fp16::same(values, bits, to); }
};

struct Fp32 : Ordered<Fp32> {
  using Value = float;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    // Places are 0 to 7, or negative where a lane has no value.
    const __m256i places = _mm256_cvtepi8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i *>(places8.of[bits])));
    const Vector moved = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), places);
    out[0] = _mm256_blendv_ps(moved, zero(), _mm256_castsi256_ps(places));
  }
  static void same(const Value *values, uint64_t bits, Value *to) { ordered(values, bits, to); }
};

struct Int8 : Ordered<Int8> {
  using Value = int8_t;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    const __m128i places = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(places8.of[bits]));
    const __m128i stored = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(values));
    const __m128i all = _mm_shuffle_epi8(stored, places);
    out[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(all));
  }
};

#include "rows.h"

bool available() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("popcnt") &&
         __builtin_cpu_supports("bmi2");
}

}  // namespace

namespace owled {
extern const Path avx2 = OWLED_PATH("avx2", available);
}

#else

namespace owled {
extern const Path avx2 = {"avx2", [] { return false; }, {}, {}, {}};
}

#endif
