// NEON of 64-bit Arm (Jetson, Graviton, ...): eight columns at a time, as in avx2.cpp.
#include "path.h"

#include <cstring>

#if defined(__aarch64__)

#include <arm_neon.h>

#include "places.h"

namespace {

using Vector = float32x4_t;
constexpr int Lanes = 4;
constexpr int RowsAtOnce = 2;  // as for AVX2
constexpr auto places32 = owled::byte_places<4>();
constexpr auto places16 = owled::byte_places<2>();
constexpr auto places8 = owled::byte_places<1>();

inline Vector zero() { return vdupq_n_f32(0.0f); }
inline Vector load(const float *p) { return vld1q_f32(p); }
inline Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
inline float total_of(Vector a) { return vaddvq_f32(a); }

// A place past the table gives zero.
inline uint8x16_t expand16(const void *values, uint64_t bits) {
  return vqtbl1q_u8(vld1q_u8(static_cast<const uint8_t *>(values)), vld1q_u8(places16.of[bits]));
}

template <class E>
struct Ordered {
  static constexpr int Group = 8, Vectors = 2;
  template <class Value>
  static void ordered(const Value *values, uint64_t bits, float *to) {
    Vector out[2];
    E::floats(values, bits, out);
    vst1q_f32(to, out[0]);
    vst1q_f32(to + 4, out[1]);
  }
};

struct Fp16 : Ordered<Fp16> {
  using Value = uint16_t;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    const float16x8_t all = vreinterpretq_f16_u8(expand16(values, bits));
    out[0] = vcvt_f32_f16(vget_low_f16(all));
    out[1] = vcvt_high_f32_f16(all);
  }
  static void same(const Value *values, uint64_t bits, Value *to) {
    vst1q_u16(to, vreinterpretq_u16_u8(expand16(values, bits)));
  }
};

struct Bf16 : Ordered<Bf16> {
  using Value = uint16_t;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    const uint16x8_t all = vreinterpretq_u16_u8(expand16(values, bits));
    out[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(all), 16));
    out[1] = vreinterpretq_f32_u32(vshll_high_n_u16(all, 16));
  }
  static void same(const Value *values, uint64_t bits, Value *to) { Fp16::same(values, bits, to); }
};

struct Fp32 : Ordered<Fp32> {
  using Value = float;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    // The second half's values begin after those of the first.
    const uint8_t *low = reinterpret_cast<const uint8_t *>(values);
    const uint8_t *high = low + 4 * __builtin_popcountll(bits & 15);
    out[0] = vreinterpretq_f32_u8(vqtbl1q_u8(vld1q_u8(low), vld1q_u8(places32.of[bits & 15])));
    out[1] = vreinterpretq_f32_u8(vqtbl1q_u8(vld1q_u8(high), vld1q_u8(places32.of[bits >> 4])));
  }
  static void same(const Value *values, uint64_t bits, Value *to) { ordered(values, bits, to); }
};

struct Int8 : Ordered<Int8> {
  using Value = int8_t;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    const int8x8_t stored = vld1_s8(values);
    const int8x8_t all = vtbl1_s8(stored, vreinterpret_s8_u8(vld1_u8(places8.of[bits])));
    const int16x8_t wide = vmovl_s8(all);
    out[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
    out[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)));
  }
};

#include "rows.h"

}  // namespace

namespace owled {
extern const Path neon = OWLED_PATH("neon", [] { return true; });
}

#else

namespace owled {
extern const Path neon = {"neon", [] { return false; }, {}, {}, {}};
}

#endif
