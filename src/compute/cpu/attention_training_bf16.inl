// What attention_training.inl is computed with where products are in bfloat16: neighbours of a
// product's depth lie side by side. Scores, the softmax and all sums stay float.
struct Bf16Factors {
  using Element = uint16_t;
  static constexpr bool kPairsAreRows = false;

  static void pack_rows(uint16_t* out, ConstHeads x, int64_t head, int64_t rows,
                        int64_t padded) noexcept {
    const int64_t dims = round_up(x.head_dim, kTileCols);
    for (int64_t i = 0; i < padded; ++i) {
      for (int64_t d = 0; d < dims; d += kTileCols) {
        const __m512i row = i < rows ? Bf16Panels::row_stretch(x.at(i, head) + d, x.head_dim - d)
                                     : _mm512_setzero_si512();
        _mm512_storeu_si512(out + slice_offset(d, i, padded), row);
      }
    }
  }
  // [head_dim / kTileCols][rows / 2][kTileCols][2]
  static void pack_rights(uint16_t* out, ConstHeads x, int64_t head, int64_t rows,
                          int64_t padded) noexcept {
    const int64_t dims = round_up(x.head_dim, kTileCols);
    for (int64_t i = 0; i < padded; i += 2) {
      for (int64_t d = 0; d < dims; d += Vec::kLanes) {
        const int64_t there = x.head_dim - d;
        const Vec even = i < rows ? load_some(x.at(i, head) + d, there) : Vec::zero();
        const Vec odd = i + 1 < rows ? load_some(x.at(i + 1, head) + d, there) : Vec::zero();
        uint16_t* to = out + slice_offset(d / kTileCols * kTileCols, i, padded);
        _mm512_storeu_si512(to + 2 * (d % kTileCols), Bf16Panels::pairs(even, odd));
      }
    }
  }
  // [rows / kTileCols][head_dim / 2][kTileCols][2]
  static void pack_columns(uint16_t* out, ConstHeads x, int64_t head, int64_t first, int64_t rows,
                           int64_t padded, float factor) noexcept {
    const int64_t dims = round_up(x.head_dim, kTileCols);
    const Vec scale = Vec::set1(factor);
    for (int64_t i = 0; i < padded; i += Vec::kLanes) {
      uint16_t* panel = out + i / kTileCols * dims * kTileCols + 2 * (i % kTileCols);
      for (int64_t d = 0; d < dims; d += kTileCols) {
        Vec block[Vec::kLanes];  // of pairs, which move like floats
        for (int64_t r = 0; r < Vec::kLanes; ++r) {
          if (i + r >= rows) {
            block[r] = Vec::zero();
            continue;
          }
          const float* from = x.at(first + i + r, head) + d;
          const Vec low = load_some(from, x.head_dim - d) * scale;
          const Vec high = load_some(from + Vec::kLanes, x.head_dim - d - Vec::kLanes) * scale;
          block[r].v =
              _mm512_castsi512_ps(reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v)));
        }
        Vec::transpose(block);
        for (int64_t c = 0; c < Vec::kLanes; ++c) {
          _mm512_storeu_ps(panel + (d + 2 * c) * kTileCols, block[c].v);
        }
      }
    }
  }

  [[gnu::always_inline]] static inline void multiply_slice(Tile& tile, const uint16_t* left,
                                                           const uint16_t* right) noexcept {
    Bf16Panels::multiply<kTileCols / 2, 1>(tile, left, right, kTileCols);
  }
  [[gnu::always_inline]] static inline void store_rows(uint16_t* rows, const Tile& tile) noexcept {
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; ++i) {
      _mm512_storeu_si512(rows + i * kQueryBlock, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(
                                                      tile.sums[i][1].v, tile.sums[i][0].v)));
    }
  }
  [[gnu::always_inline]] static inline void store_pairs(uint16_t* pairs,
                                                        const Tile& tile) noexcept {
#pragma GCC unroll 12
    for (int i = 0; i < kTileRows; i += 2) {
      for (int half = 0; half < 2; ++half) {
        store_pair(pairs + i * kQueryBlock + 2 * half * Vec::kLanes, tile.sums[i][half],
                   tile.sums[i + 1][half]);
      }
    }
  }
  [[gnu::always_inline]] static inline void store_pair(uint16_t* pairs, Vec even,
                                                       Vec odd) noexcept {
    _mm512_storeu_si512(pairs, Bf16Panels::pairs(even, odd));
  }
  [[gnu::always_inline]] static inline uint16_t* pair_at(uint16_t* pairs, int64_t key,
                                                         int64_t query) noexcept {
    return pairs + key * kQueryBlock + 2 * query;
  }
  [[gnu::always_inline]] static inline void multiply_rows(Tile& tile, const uint16_t* rows,
                                                          const uint16_t* right,
                                                          int64_t depth) noexcept {
    Bf16Panels::multiply<kQueryBlock / 2, 1>(tile, rows, right, depth);
  }
  [[gnu::always_inline]] static inline void multiply_pairs(Tile& tile, const uint16_t* pairs,
                                                           const uint16_t* right,
                                                           int64_t depth) noexcept {
    Bf16Panels::multiply<1, kQueryBlock>(tile, pairs, right, depth);
  }
};
