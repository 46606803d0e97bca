// The C ABI: chooses the path, hands out rows to threads.
#include "owled_kernels.h"
#include "path.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

namespace {

std::atomic<owled_parallel> parallel{nullptr};

// Best first. The portable path is always there.
const owled::Path *path_at(int index) {
  for (const owled::Path *path : {&owled::avx512, &owled::avx2, &owled::neon, &owled::portable})
    if (path->available() && index-- == 0) return path;
  return nullptr;
}

std::atomic<const owled::Path *> chosen{nullptr};

const owled::Path &path() {
  if (!chosen.load(std::memory_order_relaxed)) chosen = path_at(0);
  return *chosen.load(std::memory_order_relaxed);
}

// Rows are taken in pieces by whoever is free: on a shared computer threads are not equally fast.
template <class Work>
struct Pieces {
  Work work;
  int64_t last, size;
  std::atomic<int64_t> next;

  static void run(void *self) {
    Pieces &pieces = *static_cast<Pieces *>(self);
    for (;;) {
      const int64_t from = pieces.next.fetch_add(pieces.size, std::memory_order_relaxed);
      if (from >= pieces.last) return;
      pieces.work(from, std::min(from + pieces.size, pieces.last));
    }
  }
};

constexpr int64_t WeightsWorthAThread = 1 << 16;  // below it waking one costs more than it gives
constexpr int64_t PiecesAThread = 8;

template <class Work>
void for_rows(int64_t first, int64_t last, int64_t columns, int threads, Work work) {
  const owled_parallel in_parallel = parallel.load(std::memory_order_relaxed);
  const int64_t worth = (last - first) * columns / WeightsWorthAThread;
  threads = static_cast<int>(std::min<int64_t>(threads, worth));
  if (!in_parallel || threads < 2) {
    work(first, last);
    return;
  }
  const int64_t size = (last - first) / (threads * PiecesAThread) + 1;
  Pieces<Work> pieces{work, last, size, {first}};
  in_parallel(Pieces<Work>::run, &pieces, threads, 0);
}

// One buffer a thread, kept: a decoding loop must not allocate.
class Scratch {
 public:
  ~Scratch() { release(); }
  float *of(int64_t floats) {
    if (floats > size_) {
      release();
      data_ = static_cast<float *>(
          ::operator new(floats * sizeof(float), std::align_val_t(64), std::nothrow));
      size_ = data_ ? floats : 0;
    }
    return data_;
  }

 private:
  void release() { ::operator delete(data_, std::align_val_t(64)); }
  float *data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace

extern "C" {

int owled_abi(void) { return OWLED_ABI; }

const char *owled_path(int index) {
  const owled::Path *path = index < 0 ? nullptr : path_at(index);
  return path ? path->name : nullptr;
}

int owled_use_path(const char *name) {
  const owled::Path *path;
  for (int index = 0; (path = path_at(index)); ++index) {
    if (std::strcmp(path->name, name) == 0) {
      chosen = path;
      return 0;
    }
  }
  return -1;
}

void owled_use_threads_of(owled_parallel of) { parallel = of; }

int owled_multiply(const owled_matrix *weight, const float *x, int64_t batch, const float *bias,
                   float *y, int threads) {
  if (batch < 1 || batch > OWLED_MAX_BATCH || weight->type < 0 || weight->type > OWLED_INT8)
    return -1;
  // Groups are read whole: the inputs past the last column have to be there, and zero.
  static thread_local Scratch scratch;
  const int64_t columns = weight->columns, stride = (columns + 63) / 64 * 64;
  float *inputs = scratch.of(batch * stride);
  if (!inputs) return -1;
  for (int64_t b = 0; b < batch; ++b) {
    std::memcpy(inputs + b * stride, x + b * columns, columns * sizeof(float));
    std::fill(inputs + b * stride + columns, inputs + (b + 1) * stride, 0.0f);
  }
  const owled::MultiplyRows multiply = path().multiply[weight->type][batch - 1];
  for_rows(0, weight->rows, columns, threads, [=](int64_t from, int64_t to) {
    multiply(*weight, inputs, stride, bias, y, from, to);
  });
  return 0;
}

int owled_unpack(const owled_matrix *weight, int64_t first, int64_t last, void *out, int out_type,
                 int threads) {
  if (weight->type < 0 || weight->type > OWLED_INT8 || first < 0 || first > last ||
      last > weight->rows)
    return -1;
  const owled::UnpackRows unpack =
      out_type == OWLED_FP32 ? path().unpack_float[weight->type]
      : out_type == weight->type ? path().unpack_same[weight->type] : nullptr;
  if (!unpack) return -1;
  const int64_t row_bytes = weight->columns * (out_type == OWLED_FP32 ? 4 : 2);
  for_rows(first, last, weight->columns, threads, [=](int64_t from, int64_t to) {
    unpack(*weight, static_cast<char *>(out) + (from - first) * row_bytes, from, to);
  });
  return 0;
}

}  // extern "C"
