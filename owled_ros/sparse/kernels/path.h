// What an instruction set provides; one file each defines one of these.
#ifndef OWLED_PATH_H
#define OWLED_PATH_H

#include "owled_kernels.h"

namespace owled {

// x: batch rows of `stride` floats, zero past the last column, aligned to 64 bytes.
using MultiplyRows = void (*)(const owled_matrix &, const float *x, int64_t stride,
                              const float *bias, float *y, int64_t first, int64_t last);
using UnpackRows = void (*)(const owled_matrix &, void *out, int64_t first, int64_t last);

struct Path {
  const char *name;
  bool (*available)();
  MultiplyRows multiply[4][OWLED_MAX_BATCH];  // [type][batch - 1]
  UnpackRows unpack_float[4];                 // [type], to float32
  UnpackRows unpack_same[4];                  // [type], to the values' own type; not int8
};

extern const Path avx512, avx2, neon, portable;

}  // namespace owled

#endif
