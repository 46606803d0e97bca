// Runs every kernel on random matrices in buffers of exactly the promised size, and compares with
// plain loops. Built with sanitizers, or for another processor, by test_compiled.py.
#include "owled_kernels.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

namespace {

std::mt19937 draw(7);

struct Matrix {
  owled_matrix packed;
  std::vector<double> dense;
  // Exactly as large as promised, on the heap, so that a sanitizer sees one byte too many.
  uint8_t *mask;
  char *values;
  uint32_t *starts;
  float *scales;

  Matrix(int64_t rows, int64_t columns, double density, int type) : dense(rows * columns) {
    const int64_t row_bytes = (columns + 63) / 64 * 8;
    mask = static_cast<uint8_t *>(std::calloc(rows, row_bytes));
    starts = static_cast<uint32_t *>(std::malloc((rows + 1) * sizeof(uint32_t)));
    scales = type == OWLED_INT8 ? static_cast<float *>(std::malloc(rows * 4)) : nullptr;
    std::vector<char> stored;
    uint32_t count = 0;
    for (int64_t row = 0; row < rows; ++row) {
      starts[row] = count;
      if (scales) scales[row] = 0.5f + row % 3;
      for (int64_t column = 0; column < columns; ++column) {
        if (std::uniform_real_distribution<>(0, 1)(draw) >= density) continue;
        mask[row * row_bytes + column / 8] |= 1 << column % 8;
        dense[row * columns + column] = append(stored, type) * (scales ? scales[row] : 1.0f);
        ++count;
      }
    }
    starts[rows] = count;
    values = static_cast<char *>(std::malloc(stored.size() + OWLED_PADDING));
    if (!stored.empty()) std::memcpy(values, stored.data(), stored.size());
    std::memset(values + stored.size(), 0xff, OWLED_PADDING);  // NaN, were it ever used
    packed = {rows, columns, mask, values, starts, scales, type};
  }

  ~Matrix() {
    std::free(mask);
    std::free(values);
    std::free(starts);
    std::free(scales);
  }

  // Small multiples of 1/8: exact in every type.
  static float append(std::vector<char> &stored, int type) {
    int number = std::uniform_int_distribution<>(1, 15)(draw);
    if (draw() & 1) number = -number;
    const float value = type == OWLED_INT8 ? number : number / 8.0f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t bf16 = bits >> 16;
    const uint16_t fp16 = (bits >> 16 & 0x8000) | (((bits >> 23 & 0xff) - 112) << 10) |
                          (bits >> 13 & 0x3ff);
    const int8_t int8 = static_cast<int8_t>(number);
    const void *from = type == OWLED_FP16 ? static_cast<const void *>(&fp16)
                       : type == OWLED_BF16 ? static_cast<const void *>(&bf16)
                       : type == OWLED_FP32 ? static_cast<const void *>(&value) : &int8;
    const int size = type == OWLED_FP32 ? 4 : type == OWLED_INT8 ? 1 : 2;
    stored.insert(stored.end(), static_cast<const char *>(from),
                  static_cast<const char *>(from) + size);
    return value;
  }
};

void fail(const char *what, const Matrix &matrix, int64_t batch) {
  std::printf("%s: %s is wrong: %lld x %lld, type %d, batch %lld\n", owled_path(0), what,
              static_cast<long long>(matrix.packed.rows),
              static_cast<long long>(matrix.packed.columns), matrix.packed.type,
              static_cast<long long>(batch));
  std::exit(1);
}

void check_multiply(const Matrix &matrix, int64_t batch) {
  const int64_t rows = matrix.packed.rows, columns = matrix.packed.columns;
  std::vector<float> x(batch * columns), bias(rows), y(batch * rows);
  for (float &value : x) value = std::normal_distribution<float>()(draw);
  for (float &value : bias) value = std::normal_distribution<float>()(draw);
  const bool biased = batch % 2;
  if (owled_multiply(&matrix.packed, x.data(), batch, biased ? bias.data() : nullptr, y.data(), 2))
    fail("the status", matrix, batch);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t row = 0; row < rows; ++row) {
      double sum = biased ? bias[row] : 0, size = 1;
      for (int64_t column = 0; column < columns; ++column) {
        const double product = x[b * columns + column] * matrix.dense[row * columns + column];
        sum += product;
        size += std::fabs(product);
      }
      if (!(std::fabs(y[b * rows + row] - sum) <= 1e-5 * size)) fail("a product", matrix, batch);
    }
  }
}

void check_unpack(const Matrix &matrix) {
  const int64_t rows = matrix.packed.rows, columns = matrix.packed.columns;
  const int64_t first = rows / 3, count = (rows - first) * columns;
  std::vector<float> out(count);
  if (owled_unpack(&matrix.packed, first, rows, out.data(), OWLED_FP32, 2))
    fail("the status of unpacking", matrix, 0);
  for (int64_t i = 0; i < count; ++i)
    if (out[i] != static_cast<float>(matrix.dense[first * columns + i])) fail("a weight", matrix, 0);
  if (matrix.packed.type == OWLED_FP16 || matrix.packed.type == OWLED_BF16) {
    std::vector<uint16_t> same(count);
    if (owled_unpack(&matrix.packed, first, rows, same.data(), matrix.packed.type, 1))
      fail("the status of unpacking", matrix, 0);
    for (int64_t i = 0; i < count; ++i)
      if ((same[i] == 0) != (matrix.dense[first * columns + i] == 0)) fail("a zero", matrix, 0);
  }
}

void check_refusals(const Matrix &matrix) {
  float none = 0;
  owled_matrix unknown = matrix.packed;
  unknown.type = 9;
  if (!owled_multiply(&matrix.packed, &none, 9, nullptr, &none, 1) ||
      !owled_multiply(&unknown, &none, 1, nullptr, &none, 1) ||
      !owled_unpack(&matrix.packed, 1, 0, &none, OWLED_FP32, 1) ||
      !owled_unpack(&matrix.packed, 0, matrix.packed.rows + 1, &none, OWLED_FP32, 1) ||
      !owled_use_path("none"))
    fail("a refusal", matrix, 0);
}

}  // namespace

int main() {
  const int64_t shapes[][2] = {{1, 1}, {3, 7}, {5, 64}, {4, 65}, {2, 129}, {6, 200}};
  for (int index = 0; owled_path(index); ++index) {
    if (owled_use_path(owled_path(index))) return 1;
    std::printf("%s\n", owled_path(index));
    for (const auto &shape : shapes)
      for (double density : {0.0, 0.3, 0.9, 1.1})
        for (int type = 0; type < 4; ++type) {
          const Matrix matrix(shape[0], shape[1], density, type);
          for (int64_t batch = 1; batch <= OWLED_MAX_BATCH; ++batch) check_multiply(matrix, batch);
          check_unpack(matrix);
          check_refusals(matrix);
        }
  }
  return 0;
}
