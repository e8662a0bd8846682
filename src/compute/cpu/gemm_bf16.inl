// Panels of bfloat16 for vdpbf16ps, which adds the products of pairs to a float: both factors are
// rounded as they are packed, two neighbours of the depth side by side. Sums stay float.

struct Bf16Panels {
  using Element = uint16_t;
  static constexpr int64_t kDepth = 2 * kDepthFloats;

  static int64_t padded(int64_t depth) noexcept { return (depth + 1) / 2 * 2; }

  // Sixteen pairs, the first of each from `even`.
  static __m512i pairs(Vec even, Vec odd) noexcept {
    alignas(64) static constexpr uint16_t kInterleaved[32] = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd.v, even.v));
    return _mm512_permutexvar_epi16(_mm512_load_si512(kInterleaved), both);
  }
  // Thirty-two neighbours of a row, `count` of them there and the others zero.
  static __m512i row_stretch(const float* from, int64_t count) noexcept {
    return reinterpret_cast<__m512i>(
        _mm512_cvtne2ps_pbh(load_some(from + 16, count - 16).v, load_some(from, count).v));
  }

  // A panel [depth / 2][kTileCols][2].
  static void pack_b(uint16_t* panel, const Strided& b, int64_t depth, int64_t width) noexcept {
    const int64_t whole = padded(depth);
    if (b.col_step == 1) {
      for (int64_t p = 0; p < whole; p += 2) {
        const float* even = b.data + p * b.row_step;
        const float* odd = even + b.row_step;
        for (int64_t j = 0; j < kTileCols; j += 16) {
          const Vec second = p + 1 < depth ? load_some(odd + j, width - j) : Vec::zero();
          _mm512_storeu_si512(panel + p * kTileCols + 2 * j,
                              pairs(load_some(even + j, width - j), second));
        }
      }
      return;
    }
    for (int64_t p = 0; p < whole; p += 32) {
      const int64_t count = std::min<int64_t>(16, (whole - p) / 2);
      for (int64_t half = 0; half < kTileCols; half += 16) {
        Vec block[16];  // of pairs, which move like floats
        for (int64_t j = 0; j < 16; ++j) {
          const float* column = b.data + (half + j) * b.col_step + p;
          block[j].v = half + j < width ? _mm512_castsi512_ps(row_stretch(column, depth - p))
                                        : _mm512_setzero_ps();
        }
        Vec::transpose(block);
        for (int64_t q = 0; q < count; ++q) {
          _mm512_storeu_ps(panel + (p + 2 * q) * kTileCols + 2 * half, block[q].v);
        }
      }
    }
  }

  // Panels [depth / 2][kTileRows][2].
  static void pack_a(uint16_t* panels, const Strided& a, int64_t depth, int64_t height) noexcept {
    const int64_t whole = padded(depth);
    const auto put = [&](int64_t row, int64_t p, __m512i values) {
      const __mmask16 mask = Vec::mask(p + 2 < whole ? Vec::kLanes : kTileRows);
      _mm512_mask_storeu_epi32(panels + row * whole + p * kTileRows, mask, values);
    };
    if (a.col_step != 1) {
      for (int64_t p = 0; p < whole; p += 2) {
        for (int64_t row = 0; row < height; row += kTileRows) {
          const float* even = a.data + row + p * a.col_step;
          const Vec second =
              p + 1 < depth ? load_some(even + a.col_step, height - row) : Vec::zero();
          put(row, p, pairs(load_some(even, height - row), second));
        }
      }
      return;
    }
    for (int64_t row = 0; row < height; row += kTileRows) {
      for (int64_t p = 0; p < whole; p += 32) {
        const int64_t count = std::min<int64_t>(16, (whole - p) / 2);
        Vec block[16];  // of pairs, which move like floats
        for (int64_t i = 0; i < 16; ++i) {
          const float* from = a.data + (row + i) * a.row_step + p;
          const bool there = i < kTileRows && row + i < height;
          block[i].v = there ? _mm512_castsi512_ps(row_stretch(from, depth - p))
                             : _mm512_setzero_ps();
        }
        Vec::transpose(block);
        for (int64_t q = 0; q < count; ++q) put(row, p + 2 * q, _mm512_castps_si512(block[q].v));
      }
    }
  }

  // As Tile::multiply, with steps in pairs.
  template <int64_t kRowStep, int64_t kDepthStep>
  [[gnu::always_inline]] static inline void multiply(Tile& tile, const uint16_t* a,
                                                     const uint16_t* b, int64_t depth) noexcept {
    for (int64_t p = 0; p < depth; p += 2) {
      const auto left = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b));
      const auto right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + kTileCols));
#pragma GCC unroll 12
      for (int i = 0; i < kTileRows; ++i) {
        int32_t pair;
        std::memcpy(&pair, a + 2 * i * kRowStep, sizeof(pair));
        const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
        tile.sums[i][0].v = _mm512_dpbf16_ps(tile.sums[i][0].v, x, left);
        tile.sums[i][1].v = _mm512_dpbf16_ps(tile.sums[i][1].v, x, right);
      }
      a += 2 * kDepthStep;
      b += 2 * kTileCols;
    }
  }
  [[gnu::always_inline]] static inline void multiply(Tile& tile, const uint16_t* a,
                                                     const uint16_t* b, int64_t depth) noexcept {
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
