// Panels of bfloat16 for vdpbf16ps, which adds the products of pairs to a float: both factors are
// rounded as they are packed, two neighbours of the depth side by side. Sums stay float.

struct Bf16Panels {
  using Element = uint16_t;
  static constexpr int64_t kDepth = 512;
  static constexpr int64_t kRowStep = kDepth + 32;

  static int64_t padded(int64_t depth) noexcept { return (depth + 1) / 2 * 2; }

  static __m512 load_n(const float* p, int64_t n) noexcept {
    if (n >= 16) return _mm512_loadu_ps(p);
    return n <= 0 ? _mm512_setzero_ps() : Vec::load_n(p, n).v;
  }
  // Sixteen pairs, the first of each from `even`.
  static __m512i pairs(__m512 even, __m512 odd) noexcept {
    alignas(64) static constexpr uint16_t kInterleaved[32] = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
    return _mm512_permutexvar_epi16(_mm512_load_si512(kInterleaved), both);
  }
  // Thirty-two neighbours of a row, `count` of them there and the others zero.
  static __m512i row_stretch(const float* from, int64_t count) noexcept {
    return reinterpret_cast<__m512i>(
        _mm512_cvtne2ps_pbh(load_n(from + 16, count - 16), load_n(from, count)));
  }

  // Panels [cols / kTileCols][depth / 2][kTileCols][2].
  static void pack_b(uint16_t* panel, const Strided& b, int64_t first_row, int64_t depth,
                     int64_t first, int64_t cols) noexcept {
    const int64_t whole = padded(depth);
    for (int64_t col = 0; col < cols; col += kTileCols, panel += whole * kTileCols) {
      const int64_t width = std::min<int64_t>(kTileCols, cols - col);
      const float* from = b.data + first_row * b.row_step + (first + col) * b.col_step;
      if (b.col_step == 1) {
        for (int64_t p = 0; p < whole; p += 2) {
          const float* even = from + p * b.row_step;
          const float* odd = p + 1 < depth ? even + b.row_step : nullptr;
          for (int64_t j = 0; j < kTileCols; j += 16) {
            const __m512 second = odd != nullptr ? load_n(odd + j, width - j) : _mm512_setzero_ps();
            _mm512_storeu_si512(panel + p * kTileCols + 2 * j,
                                pairs(load_n(even + j, width - j), second));
          }
        }
        continue;
      }
      // Columns are contiguous: sixteen pairs of each go to sixteen rows of the panel.
      const __m512i rows = _mm512_mullo_epi32(
          _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
          _mm512_set1_epi32(kTileCols));
      for (int64_t j = 0; j < kTileCols; ++j) {
        const float* column = from + j * b.col_step;
        for (int64_t p = 0; p < whole; p += 32) {
          const __mmask16 there = Vec::mask(std::min<int64_t>(16, (whole - p) / 2));
          const __m512i values =
              j < width ? row_stretch(column + p, depth - p) : _mm512_setzero_si512();
          _mm512_mask_i32scatter_epi32(panel + p * kTileCols + 2 * j, there, rows, values, 4);
        }
      }
    }
  }

  // Rows kRowStep apart, or panels [rows / kTileRows][depth / 2][kTileRows][2].
  static void pack_a(uint16_t* panel, const Strided& a, int64_t first, int64_t rows,
                     int64_t first_col, int64_t depth) noexcept {
    const float* from = a.data + first * a.row_step + first_col * a.col_step;
    if (a.col_step == 1) {
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t p = 0; p < depth; p += 32) {
          _mm512_storeu_si512(panel + i * kRowStep + p,
                              row_stretch(from + i * a.row_step + p, depth - p));
        }
      }
      return;
    }
    const int64_t whole = padded(depth);
    for (int64_t i = 0; i < rows; i += kTileRows, panel += whole * kTileRows) {
      const int64_t height = std::min<int64_t>(kTileRows, rows - i);
      for (int64_t p = 0; p < whole; p += 2) {
        const float* even = from + i + p * a.col_step;
        const __m512 second =
            p + 1 < depth ? load_n(even + a.col_step, height) : _mm512_setzero_ps();
        _mm512_mask_storeu_epi32(panel + p * kTileRows, Vec::mask(kTileRows),
                                 pairs(load_n(even, height), second));
      }
    }
  }

  template <int64_t kRowPairs, int64_t kDepthPairs>
  [[gnu::always_inline]] static inline void multiply(Tile& tile, const uint16_t* a,
                                                     const uint16_t* b, int64_t depth) noexcept {
    for (int64_t p = 0; p < depth; p += 2) {
      const auto left = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b));
      const auto right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + kTileCols));
#pragma GCC unroll 12
      for (int i = 0; i < kTileRows; ++i) {
        int32_t pair;
        std::memcpy(&pair, a + 2 * i * kRowPairs, sizeof(pair));
        const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
        tile.sums[i][0].v = _mm512_dpbf16_ps(tile.sums[i][0].v, x, left);
        tile.sums[i][1].v = _mm512_dpbf16_ps(tile.sums[i][1].v, x, right);
      }
      a += 2 * kDepthPairs;
      b += 2 * kTileCols;
    }
  }
  [[gnu::always_inline]] static inline void multiply_rows(Tile& tile, const uint16_t* a,
                                                          const uint16_t* b,
                                                          int64_t depth) noexcept {
    multiply<kRowStep / 2, 1>(tile, a, b, depth);
  }
  [[gnu::always_inline]] static inline void multiply_panel(Tile& tile, const uint16_t* a,
                                                           const uint16_t* b,
                                                           int64_t depth) noexcept {
    multiply<1, kTileRows>(tile, a, b, depth);
  }
};

// Independent chains of pair products; see fma_loop.
constexpr int kBf16Chains = 12;
float bf16_loop(int64_t rounds) noexcept {
  Vec chains[kBf16Chains];
  for (Vec& chain : chains) chain = Vec::set1(1e-3f);
  const auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3F80));
  for (int64_t round = 0; round < rounds; ++round) {
    for (Vec& chain : chains) chain.v = _mm512_dpbf16_ps(chain.v, ones, ones);
  }
  Vec total = Vec::zero();
  for (const Vec& chain : chains) total = total + chain;
  return total.sum();
}
