// Attention of one query over pages of bytes, by products of bytes: what meets the bytes, a query
// and the weights of a page's values, is rounded to whole levels of 14 bits. A level is two bytes
// of seven bits, so that neighbouring products fit in the 16 bits that some machines add them in:
// level = kHighStep · high + low. Their sums are exact.

constexpr int64_t kMostByteDims = 1024;  // of a head, whose sums fit in 32 bits
constexpr int16_t kHighStep = 1 << ByteSums::kLowBits;
constexpr float kMiddle = 128;  // of a key's bytes, 0 to 255

struct Levels {
  float unit;
  float sum;  // of the levels
};

// Rounds x [count], a number of whole vectors, to levels of at most `most` times a unit. They take
// the place of x: of four, the high bytes and then the low ones, which begin at -low_offset.
inline Levels to_levels(float* x, int64_t count, float most, int32_t low_offset) noexcept {
  Vec largest = Vec::zero();
  for (int64_t i = 0; i < count; i += Vec::kLanes) {
    const Vec v = Vec::load(x + i);
    largest = Vec::max(largest, Vec::max(v, Vec::zero() - v));
  }
  const float size = largest.largest();
  constexpr float kNothing = 1e-30f;  // what is smaller has no finite inverse
  const Vec inverse = Vec::set1(size > kNothing ? most / size : 0);
  Vec sum = Vec::zero();
  for (int64_t i = 0; i < count; i += Vec::kLanes) {
    const Vec level = Vec::round(Vec::load(x + i) * inverse);
    sum = sum + level;
    ByteSums::store_levels(level, low_offset, reinterpret_cast<std::byte*>(x) + 2 * i);
  }
  return {size / most, sum.sum()};
}

// The query of a row. Its bytes are -64 to 64 and meet keys of 0 to 255.
inline void round_query(const AttentionScratch& s, int64_t row, int64_t dim) noexcept {
  float* q = s.q + row * padded(dim);
  std::fill(q + dim, q + padded(dim), 0.0f);
  s.bytes[row].query_sum = std::accumulate(q, q + dim, 0.0f);
  const Levels levels = to_levels(q, padded(dim), 8191, 1 << (ByteSums::kLowBits - 1));
  s.bytes[row].query_unit = levels.unit;
  s.bytes[row].query_levels = levels.sum;
}

// The weights of a row over a page. Their bytes are 0 to 127 and meet values of -128 to 127.
inline void round_weights(const AttentionScratch& s, int64_t row) noexcept {
  s.bytes[row].weight_unit = to_levels(s.scores + row * kPageTokens, kPageTokens, 16383, 0).unit;
}

// R rows' sums of levels times bytes in C vectors: `groups` groups of four bytes a lane, `stride`
// bytes apart, meet the levels of rows `level_stride` floats apart. add(sum, bytes, levels, factor)
// adds products, done(row, vector, sums) takes the sums.
template <int R, int C, class Add, class Done>
[[gnu::always_inline]] inline void sum_bytes(const float* levels, int64_t level_stride,
                                             const std::byte* bytes, int64_t stride, int64_t groups,
                                             const Add& add, const Done& done) noexcept {
  ByteSums sums[R][C] = {};
  for (int64_t g = 0; g < groups; ++g) {
    ByteSums::Bytes four[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) four[c] = ByteSums::load(bytes + g * stride + c * 4 * Vec::kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const float* level = levels + r * level_stride + 2 * g;
      const ByteSums::Bytes high = ByteSums::all(level), low = ByteSums::all(level + 1);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        add(sums[r][c], four[c], high, kHighStep);
        add(sums[r][c], four[c], low, int16_t{1});
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) done(r, c, sums[r][c].floats());
  }
}

// Calls tile(row, lane, rows, vectors) over `rows` by `lanes`, of which there are as many as a page
// has positions, or fewer: all at once, or vector by vector.
template <class Tile>
inline void for_byte_tiles(int64_t rows, int64_t lanes, const Tile& tile) noexcept {
  constexpr int kRows = Vec::kLanes == 16 ? 4 : 1;
  for (int64_t row = 0; row < rows; row += kRows) {
    with_constant<kRows>(std::min<int64_t>(kRows, rows - row), [&](auto height) {
      if (lanes == kPageTokens) {
        tile(row, 0, height, std::integral_constant<int, kPageTokens / Vec::kLanes>{});
        return;
      }
      for (int64_t lane = 0; lane < lanes; lane += Vec::kLanes) {
        tile(row, lane, height, std::integral_constant<int, 1>{});
      }
    });
  }
}
static_assert(KvLayout::panel_dims == kPageTokens);

// scores[r][j] = q[r] · (byte of key j - kMiddle) over the whole page.
inline void score_bytes(const AttentionScratch& s, const std::byte* keys, const KvLayout& layout,
                        int64_t rows) noexcept {
  const int64_t stride = padded(layout.head_dim);
  for_byte_tiles(rows, kPageTokens, [&](int64_t row, int64_t lane, auto r, auto c) {
    sum_bytes<r, c>(
        s.q + row * stride, stride, keys + 4 * lane, 4 * kPageTokens, layout.dims() / 4,
        [](ByteSums& sum, ByteSums::Bytes key, ByteSums::Bytes q, int16_t factor) {
          sum.add(key, q, factor);
        },
        [&](int i, int k, Vec sum) {
          const ByteRow& own = s.bytes[row + i];
          const Vec levels = sum - Vec::set1(kMiddle * own.query_levels);
          (levels * Vec::set1(own.query_unit))
              .store(s.scores + (row + i) * kPageTokens + lane + k * Vec::kLanes);
        });
  });
}

// sums[r] = sums[r] · carry[r] + Σ weight[r][j] · byte of value j + shift[r] over the positions
// [low, high).
inline void add_bytes(const AttentionScratch& s, const std::byte* values, const KvLayout& layout,
                      int64_t rows, int64_t low, int64_t high) noexcept {
  const int64_t stride = padded(layout.head_dim);
  const int64_t first = low / 4, groups = (high + 3) / 4 - first;
  for (int64_t panel = 0; panel < layout.dims(); panel += KvLayout::panel_dims) {
    const int64_t width = layout.panel_width(panel);
    const std::byte* group = values + layout.value_at(4 * first, panel);
    for_byte_tiles(rows, width, [&](int64_t row, int64_t lane, auto r, auto c) {
      sum_bytes<r, c>(
          s.scores + row * kPageTokens + 2 * first, kPageTokens, group + 4 * lane, 4 * width,
          groups,
          [](ByteSums& sum, ByteSums::Bytes value, ByteSums::Bytes weight, int16_t factor) {
            sum.add(weight, value, factor);
          },
          [&](int i, int k, Vec sum) {
            const ByteRow& own = s.bytes[row + i];
            float* sums = s.sums + (row + i) * stride + panel + lane + k * Vec::kLanes;
            const Vec before =
                Vec::fma(Vec::load(sums), Vec::set1(s.carry[row + i]), Vec::set1(own.shift));
            Vec::fma(Vec::set1(own.weight_unit), sum, before).store(sums);
          });
    });
  }
}

// Scores of a page become weights, times the keys' and the values' scales, and these levels. Scales
// and zeros from `high` on may be anything.
inline void weigh_bytes(const AttentionScratch& s, const float* keys, const float* values,
                        bool zeros, const AttentionRules& rules, int64_t first_head, int64_t behind,
                        int64_t rows, int64_t low, int64_t high) noexcept {
  for (int64_t r = 0; r < rows; ++r) {
    float* scores = s.scores + r * kPageTokens;
    for (int64_t j = 0; j < kPageTokens; j += Vec::kLanes) {
      Vec score = Vec::load(scores + j);
      if (zeros) {
        const Vec shift = Vec::set1(kMiddle) - Vec::load(keys + kPageTokens + j);
        score = Vec::fma(Vec::set1(s.bytes[r].query_sum), shift, score);
      }
      (score * Vec::load(keys + j)).store(scores + j);
    }
    if (rules.adjust()) adjust_scores(scores, rules, first_head + r, behind);
    weigh_row(s, r, low, high);
    Vec shift = Vec::zero();
    for (int64_t j = 0; j < high; j += Vec::kLanes) {
      const int64_t count = std::min<int64_t>(Vec::kLanes, high - j);
      const Vec weight = Vec::load(scores + j) * Vec::load_n(values + j, count);
      if (zeros) {
        const Vec zero = Vec::load_n(values + kPageTokens + j, count);
        shift = Vec::fma(weight, Vec::set1(kMiddle) - zero, shift);
      }
      weight.store(scores + j);
    }
    s.bytes[r].shift = shift.sum();
    round_weights(s, r);
  }
}

// A page of the kv heads [first, end). The keys of all these heads lie side by side, and so do
// their values: they are read in one stretch each.
void attend_page_of_bytes(const AttentionScratch& scratch, const KvLayout& layout,
                          const std::byte* page, const AttentionRules& rules, int64_t behind,
                          int64_t first, int64_t end, int64_t rows, int64_t low,
                          int64_t high) noexcept {
  const std::byte* value_block = page + layout.block_bytes();
  const auto rows_of = [&](int64_t head) {
    return scratch.from_row((head - first) * rows, layout.head_dim);
  };
  for (int64_t head = first; head < end; ++head) {
    score_bytes(rows_of(head), page + layout.elements_at(head), layout, rows);
  }
  for (int64_t head = first; head < end; ++head) {
    const std::byte* keys = page + layout.floats_at(head);
    const std::byte* values = value_block + layout.floats_at(head);
    weigh_bytes(rows_of(head), stored<float>(keys), stored<float>(values),
                layout.dtype == DType::U8, rules, head * rows, behind, rows, low, high);
  }
  for (int64_t head = first; head < end; ++head) {
    add_bytes(rows_of(head), value_block + layout.elements_at(head), layout, rows, low, high);
  }
}
