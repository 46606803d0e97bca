// Plain C++ for any little-endian computer: one bit after the other.
#include "path.h"

#include <cstring>

namespace {

using Vector = float;
constexpr int Lanes = 1;
constexpr int RowsAtOnce = 1;

inline Vector zero() { return 0.0f; }
inline Vector load(const float *p) { return *p; }
inline Vector add(Vector a, Vector b) { return a + b; }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return a * b + c; }
inline float total_of(Vector a) { return a; }

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Shifting the exponent to its place and scaling gives subnormals too; weights are finite.
inline float from_fp16(uint16_t half) {
  const float magnitude = float_of(static_cast<uint32_t>(half & 0x7fff) << 13) * 0x1p112f;
  return half & 0x8000 ? -magnitude : magnitude;
}

template <class E, class V>
struct Scalar {
  using Value = V;
  static constexpr int Group = 8, Vectors = 8;
  static void floats(const Value *values, uint64_t bits, Vector *out) {
    for (int column = 0; column < Group; ++column)
      out[column] = bits >> column & 1 ? E::widen(*values++) : 0.0f;
  }
  static void ordered(const Value *values, uint64_t bits, float *to) { floats(values, bits, to); }
  static void same(const Value *values, uint64_t bits, Value *to) {
    for (int column = 0; column < Group; ++column)
      to[column] = bits >> column & 1 ? *values++ : Value(0);
  }
};

struct Fp16 : Scalar<Fp16, uint16_t> {
  static float widen(Value value) { return from_fp16(value); }
};
struct Bf16 : Scalar<Bf16, uint16_t> {
  static float widen(Value value) { return float_of(static_cast<uint32_t>(value) << 16); }
};
struct Fp32 : Scalar<Fp32, float> {
  static float widen(Value value) { return value; }
};
struct Int8 : Scalar<Int8, int8_t> {
  static float widen(Value value) { return value; }
};

#include "rows.h"

}  // namespace

namespace owled {
extern const Path portable = OWLED_PATH("portable", [] { return true; });
}
