/* Products with packed weights (see owled_ros/sparse/packing.py): a plain C ABI.
 *
 * The caller has checked the matrix: masks and starts agree, and the values are followed by
 * OWLED_PADDING bytes that may be read. Nothing here allocates but one scratch row a thread. */
#ifndef OWLED_KERNELS_H
#define OWLED_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OWLED_API __attribute__((visibility("default")))

#define OWLED_ABI 1
#define OWLED_PADDING 64
#define OWLED_MAX_BATCH 8

enum owled_type { OWLED_FP16 = 0, OWLED_BF16 = 1, OWLED_FP32 = 2, OWLED_INT8 = 3 };

typedef struct {
  int64_t rows, columns;
  const uint8_t *mask;     /* rows x ceil(columns / 64) * 8 */
  const void *values;
  const uint32_t *starts;  /* rows + 1 */
  const float *scales;     /* rows; null unless the values are int8 */
  int32_t type;            /* owled_type of the values */
} owled_matrix;

OWLED_API int owled_abi(void);

/* The instruction sets that this CPU has a kernel for, best first; null after the last. */
OWLED_API const char *owled_path(int index);

/* Use one of them from now on. Returns 0, or -1 when there is no such path. */
OWLED_API int owled_use_path(const char *name);

/* Take the process's OpenMP runtime (its GOMP_parallel), whose threads torch uses too. Without
 * one everything runs in the calling thread. */
typedef void (*owled_parallel)(void (*)(void *), void *, unsigned, unsigned);
OWLED_API void owled_use_threads_of(owled_parallel parallel);

/* y (batch x rows) = x (batch x columns) W^T + bias, all float32, batch from 1 to 8; bias may be
 * null. Returns 0, or -1 when batch or the type cannot be. */
OWLED_API int owled_multiply(const owled_matrix *weight, const float *x, int64_t batch,
                             const float *bias, float *y, int threads);

/* Rows first..last of the weight, zeros and all, in out_type: FP32, or the values' own type. */
OWLED_API int owled_unpack(const owled_matrix *weight, int64_t first, int64_t last, void *out,
                           int out_type, int threads);

#ifdef __cplusplus
}
#endif
#endif
