// Matrix products. See Kernels::matmul for the order of sums, which every path here keeps.

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

inline Vec load_as(const float* p) noexcept { return Vec::load(p); }
inline Vec load_as(const Bf16* p) noexcept { return Vec::load_bf16(&p->bits); }
inline Vec load_as(const F16* p) noexcept { return Vec::load_f16(&p->bits); }
inline Vec load_as(const float* p, int64_t n) noexcept { return Vec::load_n(p, n); }
inline Vec load_as(const Bf16* p, int64_t n) noexcept { return Vec::load_bf16_n(&p->bits, n); }
inline Vec load_as(const F16* p, int64_t n) noexcept { return Vec::load_f16_n(&p->bits, n); }

// A lane of a product of weights stored as T. Pairs of bfloat16 in a lane have their own.
template <class T>
[[gnu::always_inline]] inline Vec multiply_add(const T*, Vec x, Vec w, Vec acc) noexcept {
  return Vec::fma(x, w, acc);
}

// Calls fn with n as a compile-time constant; 1 <= n <= Max.
template <int Max, class Fn>
inline void with_constant(int64_t n, Fn&& fn) noexcept {
  if constexpr (Max == 1) {
    fn(std::integral_constant<int, 1>{});
  } else if (n == Max) {
    fn(std::integral_constant<int, Max>{});
  } else {
    with_constant<Max - 1>(n, fn);
  }
}

// acc[r][c] += x[r] · w[c], lane by lane, over `cols` columns. w[c] is at w + c * w_stride.
template <int R, int C, class T>
[[gnu::always_inline]] inline void dot_tile(Vec (&acc)[R][C], const float* x, int64_t x_stride,
                                            const T* w, int64_t w_stride, int64_t cols) noexcept {
  const auto step = [&](const auto& load_x, const auto& load_w) {
    Vec column[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) column[c] = load_w(w + c * w_stride);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec row = load_x(x + r * x_stride);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = multiply_add(w, row, column[c], acc[r][c]);
    }
  };
  int64_t k = 0;
  for (; k + Vec::kLanes <= cols; k += Vec::kLanes) {
    step([&](const float* p) { return Vec::load(p + k); },
         [&](const T* p) { return load_as(p + k); });
  }
  if (k < cols) {
    const int64_t rest = cols - k;
    step([&](const float* p) { return Vec::load_n(p + k, rest); },
         [&](const T* p) { return load_as(p + k, rest); });
  }
}

// Columns whose products are added lane by lane; then the lanes are added to the sum so far.
constexpr int64_t kDepth = 512;

// Writes the sums of a row with four weight rows, of which `valid` count.
[[gnu::always_inline]] inline void write_sums(const MatmulPart& part, int64_t row, int64_t col,
                                              int64_t valid, const float* sums) noexcept {
  float* out = part.out.row(row) + col;
  const float* bias = part.bias.empty() ? nullptr : part.bias.data() + col;
  const auto write = [&](int64_t count) {
    for (int64_t c = 0; c < count; ++c) {
      const float value = bias != nullptr ? sums[c] + bias[c] : sums[c];
      out[c] = part.accumulate ? out[c] + value : value;
    }
  };
  if (valid == 4) {
    write(4);  // a constant that the compiler makes one vector of
  } else {
    write(valid);
  }
}

// Few rows: the weight is read once, straight from its stored form. Four streams run through four
// quarters of the rows, each contiguous, so that the prefetchers follow them.
template <class T>
void few_rows(const MatmulPart& part, ConstRows x, const T* weight, int64_t begin,
              int64_t end) noexcept {
  constexpr int kStreams = 4;
  constexpr int64_t kAhead = 1024 / static_cast<int64_t>(sizeof(T));  // elements to prefetch ahead
  constexpr int64_t kStep = 64 / static_cast<int64_t>(sizeof(T));
  static_assert(kDepth % kStep == 0);
  const int64_t cols = x.cols;
  const auto row_of = [&](int64_t i) { return weight + i * cols; };
  with_constant<Vec::kTileRows>(x.rows, [&](auto rows) {
    constexpr int R = rows;
    const int64_t quarter = (end - begin) / kStreams;
    for (int64_t i = 0; i < quarter; ++i) {
      float sums[R][kStreams] = {};
      const T* w = row_of(begin + i);
      const int64_t stride = quarter * cols;
      for (int64_t k = 0; k < cols;) {
        const bool first = k == 0;
        const int64_t stretch_end = std::min(k + kDepth, cols);
        Vec acc[R][kStreams] = {};
        for (; k + kStep <= stretch_end; k += kStep) {
          for (int s = 0; s < kStreams; ++s) __builtin_prefetch(w + s * stride + k + kAhead);
          dot_tile<R, kStreams>(acc, x.data + k, x.stride, w + k, stride, kStep);
        }
        if (k < stretch_end) {
          dot_tile<R, kStreams>(acc, x.data + k, x.stride, w + k, stride, stretch_end - k);
          k = stretch_end;
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) Vec::sum4(acc[r], sums[r], !first);
      }
      for (int r = 0; r < R; ++r) {
        for (int s = 0; s < kStreams; ++s) {
          write_sums(part, r, begin + s * quarter + i, 1, sums[r] + s);
        }
      }
    }
    for (int64_t col = begin + kStreams * quarter; col < end; ++col) {
      float sums[R][4] = {};
      for (int64_t k = 0; k < cols; k += kDepth) {
        Vec acc[R][1] = {};
        dot_tile<R, 1>(acc, x.data + k, x.stride, row_of(col) + k, 0, std::min(kDepth, cols - k));
        for (int r = 0; r < R; ++r) {
          const Vec four[4] = {acc[r][0], Vec::zero(), Vec::zero(), Vec::zero()};
          Vec::sum4(four, sums[r], k > 0);
        }
      }
      for (int r = 0; r < R; ++r) write_sums(part, r, col, 1, sums[r]);
    }
  });
}

template <class T>
inline void decode_stretch(float* out, const T* row, int64_t count) noexcept {
  int64_t k = 0;
  for (; k + Vec::kLanes <= count; k += Vec::kLanes) load_as(row + k).store(out + k);
  if (k < count) load_as(row + k, count - k).store_n(out + k, count - k);
}

// Columns [first, first + count) of row `row` of a GPTQ matrix: scale · (q - (zero + 1)).
inline void decode_gptq(float* out, const GptqMatrix& m, int64_t row, int64_t first,
                        int64_t count) noexcept {
  const int bits = m.bits;
  const int64_t per = 32 / bits;
  const uint32_t mask = (1u << bits) - 1u;
  const int64_t zero_word = row / per;
  const int zero_shift = static_cast<int>(row % per) * bits;
  const int64_t zero_words = m.out * bits / 32;
  int64_t group = -1;
  float scale = 0;
  int32_t zero = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t k = first + i;
    if (m.g_idx[k] != group) {
      group = m.g_idx[k];
      scale = from_f16(m.scales[group * m.out + row]);
      zero = static_cast<int32_t>(m.qzeros[group * zero_words + zero_word] >> zero_shift & mask) +
             m.zero_shift;
    }
    const uint32_t word = m.qweight[k / per * m.out + row];
    const auto q = static_cast<int32_t>(word >> (static_cast<int>(k % per) * bits) & mask);
    out[i] = scale * static_cast<float>(q - zero);
  }
}

template <class T>
const T* dense(const Weight& weight) noexcept {
  return reinterpret_cast<const T*>(weight.data);
}
