// The loops over rows and masks, for any instruction set. A path's file defines the vectors and
// includes this inside its own unnamed namespace: nothing compiled for one instruction set may be
// merged by the linker with the same template compiled for another.
//
// An Expand<type> turns some bits of a mask and the values that they stand for into vectors:
//   Group         columns at a time (8, 16, 32 or 64), in Vectors of Lanes
//   Value         as stored
//   floats(values, bits, out[Vectors])   float32 vectors
//   ordered(values, bits, float *)       float32, in the order of the columns
//   same(values, bits, Value *)          as stored, in the order of the columns

// The computer's own prefetchers see two streams that advance unevenly and stop at each page:
// telling them what comes took a core of a Xeon from 7 to 11 GB/s. Nothing is read by this.
inline void expect(const void *at, int64_t bytes_ahead) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(at) + bytes_ahead;
  __builtin_prefetch(reinterpret_cast<const void *>(address));
  __builtin_prefetch(reinterpret_cast<const void *>(address + 64));
}

// `Rows` rows at once share what is loaded of x, and their sums do not wait for each other.
template <class E, int Batch, int Rows>
void multiply_some(const owled_matrix &weight, const float *x, int64_t stride, const float *bias,
                   float *y, int64_t row) {
  using Value = typename E::Value;
  const int64_t words = (weight.columns + 63) / 64;
  const uint8_t *mask = weight.mask + row * words * 8;
  const Value *values[Rows];
  Vector sums[Rows][Batch][E::Vectors];
  for (int r = 0; r < Rows; ++r) {
    values[r] = static_cast<const Value *>(weight.values) + weight.starts[row + r];
    for (int b = 0; b < Batch; ++b)
      for (int v = 0; v < E::Vectors; ++v) sums[r][b][v] = zero();
  }
  for (int64_t word = 0; word < words; ++word) {
    uint64_t bits[Rows];
    for (int r = 0; r < Rows; ++r) {
      const uint8_t *mine = mask + (r * words + word) * 8;
      std::memcpy(&bits[r], mine, 8);
      expect(values[r], 4096);
      expect(mine, 1024);
    }
    for (int part = 0; part < 64; part += E::Group) {
      Vector weights[Rows][E::Vectors];
      for (int r = 0; r < Rows; ++r) {
        const uint64_t mine = (bits[r] >> part) & (~0ull >> (64 - E::Group));
        E::floats(values[r], mine, weights[r]);
        values[r] += __builtin_popcountll(mine);
      }
      for (int b = 0; b < Batch; ++b) {
        const float *inputs = x + b * stride + word * 64 + part;
        for (int v = 0; v < E::Vectors; ++v) {
          const Vector input = load(inputs + v * Lanes);
          for (int r = 0; r < Rows; ++r)
            sums[r][b][v] = multiply_add(weights[r][v], input, sums[r][b][v]);
        }
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int b = 0; b < Batch; ++b) {
      Vector sum = sums[r][b][0];
      for (int v = 1; v < E::Vectors; ++v) sum = add(sum, sums[r][b][v]);
      const float total = total_of(sum) * (weight.scales ? weight.scales[row + r] : 1.0f);
      y[b * weight.rows + row + r] = total + (bias ? bias[row + r] : 0.0f);
    }
  }
}

template <class E, int Batch>
void multiply_rows(const owled_matrix &weight, const float *x, int64_t stride, const float *bias,
                   float *y, int64_t first, int64_t last) {
  constexpr int Rows = Batch <= 2 ? RowsAtOnce : 1;  // more would not fit into the registers
  int64_t row = first;
  for (; row + Rows <= last; row += Rows)
    multiply_some<E, Batch, Rows>(weight, x, stride, bias, y, row);
  for (; row < last; ++row) multiply_some<E, Batch, 1>(weight, x, stride, bias, y, row);
}

// Whole groups go straight to `out`; the last one of a row may be cut, and goes over a buffer.
template <class E, class Out, class Write>
void unpack_rows(const owled_matrix &weight, Out *out, int64_t first, int64_t last, Write write) {
  using Value = typename E::Value;
  const int64_t columns = weight.columns, words = (columns + 63) / 64;
  for (int64_t row = first; row < last; ++row, out += columns) {
    const uint8_t *mask = weight.mask + row * words * 8;
    const Value *values = static_cast<const Value *>(weight.values) + weight.starts[row];
    for (int64_t column = 0; column < columns; column += E::Group) {
      if (column % 64 == 0) {
        expect(values, 4096);
        expect(mask + column / 8, 1024);
      }
      uint64_t bits = 0;
      std::memcpy(&bits, mask + column / 8, E::Group / 8);
      if (column + E::Group <= columns) {
        write(values, bits, out + column, row);
      } else {
        Out rest[E::Group];
        write(values, bits, rest, row);
        std::memcpy(out + column, rest, (columns - column) * sizeof(Out));
      }
      values += __builtin_popcountll(bits);
    }
  }
}

template <class E>
void unpack_float(const owled_matrix &weight, void *out, int64_t first, int64_t last) {
  unpack_rows<E>(weight, static_cast<float *>(out), first, last,
                 [&](const typename E::Value *values, uint64_t bits, float *to, int64_t row) {
    E::ordered(values, bits, to);
    if (weight.scales)
      for (int i = 0; i < E::Group; ++i) to[i] *= weight.scales[row];
  });
}

template <class E>
void unpack_same(const owled_matrix &weight, void *out, int64_t first, int64_t last) {
  using Value = typename E::Value;
  unpack_rows<E>(weight, static_cast<Value *>(out), first, last,
                 [](const Value *values, uint64_t bits, Value *to, int64_t) {
    E::same(values, bits, to);
  });
}

#define OWLED_BATCHES(E) {multiply_rows<E, 1>, multiply_rows<E, 2>, multiply_rows<E, 3>, \
    multiply_rows<E, 4>, multiply_rows<E, 5>, multiply_rows<E, 6>, multiply_rows<E, 7>, \
    multiply_rows<E, 8>}
#define OWLED_PATH(NAME, AVAILABLE) {NAME, AVAILABLE, \
    {OWLED_BATCHES(Fp16), OWLED_BATCHES(Bf16), OWLED_BATCHES(Fp32), OWLED_BATCHES(Int8)}, \
    {unpack_float<Fp16>, unpack_float<Bf16>, unpack_float<Fp32>, unpack_float<Int8>}, \
    {unpack_same<Fp16>, unpack_same<Bf16>, unpack_same<Fp32>, nullptr}}
