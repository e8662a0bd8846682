// Attention over a paged cache, one kv head at a time. Pages are taken in order and each query keeps
// its own running maximum and sum, so a query's result does not depend on its neighbours. Parts of
// kAttentionPart positions are summed apart and folded in order, here as in attention_decode.inl: a
// query gets the same bits whether it is fed alone or with those around it.

constexpr int64_t kPageTokens = KvLayout::page_tokens;

inline int64_t padded(int64_t dim) noexcept {
  return (dim + Vec::kLanes - 1) / Vec::kLanes * Vec::kLanes;
}

// What a row has besides in a cache of bytes; see attention_bytes.inl.
struct ByteRow {
  float query_unit, query_levels;  // of the query's levels; their sum
  float query_sum;                 // of the query itself
  float weight_unit;               // of a page's weights
  float shift;                     // what a page adds to all dims
};
constexpr int64_t kByteRowFloats = sizeof(ByteRow) / sizeof(float);

// Scratch of one call, laid out in one block of floats.
struct AttentionScratch {
  float* keys;     // [head_dim, kPageTokens]
  float* values;   // [kPageTokens, padded dim]
  float* q;        // [rows, head_dim], times the score scale; or its levels
  float* scores;   // [rows, kPageTokens]; or the weights' levels
  float* sums;     // [rows, padded dim], weighted values of the part so far
  float* largest;  // [rows]
  float* total;    // [rows]
  float* whole;    // [rows, padded dim + 2], of the parts before: sums, largest, total
  float* carry;    // [rows], what sums are multiplied by before a page's are added
  ByteRow* bytes;  // [rows]

  static int64_t floats(int64_t dim, int64_t rows) noexcept {
    return 2 * kPageTokens * padded(dim) +
           rows * (3 * padded(dim) + kPageTokens + 5 + kByteRowFloats);
  }
  AttentionScratch(float* base, int64_t dim, int64_t rows) noexcept {
    const auto take = [&](int64_t count) {
      float* part = base;
      base += count;
      return part;
    };
    keys = take(kPageTokens * padded(dim));
    values = take(kPageTokens * padded(dim));
    q = take(rows * padded(dim));
    scores = take(rows * kPageTokens);
    sums = take(rows * padded(dim));
    largest = take(rows);
    total = take(rows);
    whole = take(rows * (padded(dim) + 2));
    carry = take(rows);
    bytes = reinterpret_cast<ByteRow*>(take(rows * kByteRowFloats));
  }

  // What belongs to the rows from `row` on.
  AttentionScratch from_row(int64_t row, int64_t dim) const noexcept {
    AttentionScratch rest = *this;
    rest.q += row * padded(dim);
    rest.scores += row * kPageTokens;
    rest.sums += row * padded(dim);
    rest.largest += row;
    rest.total += row;
    rest.whole += row * (padded(dim) + 2);
    rest.carry += row;
    rest.bytes += row;
    return rest;
  }
};

int64_t attention_scratch_floats(const KvLayout& layout, int64_t group) noexcept {
  return AttentionScratch::floats(layout.head_dim, kAttentionQueries * group);
}

// A head's keys, or values, as they are stored.
template <class T>
inline const T* stored(const std::byte* head) noexcept {
  return reinterpret_cast<const T*>(head);
}

// One kv head's keys and values of a page as floats; only the first `used` positions matter.
inline void decode_page(const AttentionScratch& s, const KvLayout& layout, const std::byte* page,
                        int64_t kv_head, int64_t used) noexcept {
  const int64_t dim = layout.head_dim, stride = padded(dim);
  const std::byte* key_block = page + layout.elements_at(kv_head);
  const std::byte* value_block = key_block + layout.block_bytes();
  const int64_t key_lanes = padded(used);  // whole vectors: the rest of a page is never read
  const auto dense = [&](auto tag) {
    using T = decltype(tag);
    const T* keys = stored<T>(key_block);
    for (int64_t d = 0; d < dim; ++d) {
      decode_stretch(s.keys + d * kPageTokens, keys + d * kPageTokens,
                     std::min(key_lanes, kPageTokens));
    }
    const T* values = stored<T>(value_block);
    for (int64_t j = 0; j < used; ++j) decode_stretch(s.values + j * stride, values + j * dim, dim);
  };
  switch (layout.dtype) {
    case DType::F16:
      return dense(F16{});
    case DType::BF16:
      return dense(Bf16{});
    case DType::U8:
    case DType::I8:
      break;
    default:
      return dense(float{});
  }
  // scale · (byte - zero), each position with its own; in I8 zero lies in the middle.
  const bool zeros = layout.dtype == DType::U8;
  const float* key_scale = stored<float>(page + layout.floats_at(kv_head));
  const float* value_scale = stored<float>(page + layout.block_bytes() + layout.floats_at(kv_head));
  const auto* keys = stored<uint8_t>(key_block);
  const auto* values = stored<uint8_t>(value_block);
  for (int64_t d = 0; d < dim; ++d) {
    for (int64_t j = 0; j < key_lanes; j += Vec::kLanes) {
      const Vec zero = zeros ? Vec::load(key_scale + kPageTokens + j) : Vec::set1(128);
      const Vec level = Vec::load_byte(keys + layout.key_at(j, d) - d % 4, d % 4, 0);
      (Vec::load(key_scale + j) * (level - zero)).store(s.keys + d * kPageTokens + j);
    }
  }
  for (int64_t j = 0; j < used; ++j) {
    const Vec scale = Vec::set1(value_scale[j]);
    const Vec zero = Vec::set1(zeros ? value_scale[kPageTokens + j] : 128);
    for (int64_t d = 0; d < dim; d += Vec::kLanes) {
      const Vec level = Vec::load_byte(values + layout.value_at(j, d) - j % 4, j % 4, 0x80);
      (scale * (level - zero)).store(s.values + j * stride + d);
    }
  }
}

// scores[r][j] = q[r] · key j for the positions [0, used) of a page, rounded up to whole vectors.
inline void score_page(const AttentionScratch& s, int64_t dim, int64_t rows,
                       int64_t used) noexcept {
  constexpr int kColumns = 4;
  for (int64_t j = 0; j < used; j += kColumns * Vec::kLanes) {
    for (int64_t row = 0; row < rows; row += Vec::kTileRows) {
      with_constant<Vec::kTileRows>(std::min<int64_t>(Vec::kTileRows, rows - row), [&](auto n) {
        constexpr int R = n;
        Vec acc[R][kColumns] = {};
        const float* q = s.q + row * padded(dim);
        for (int64_t d = 0; d < dim; ++d) {
          const float* key = s.keys + d * kPageTokens + j;
          for (int c = 0; c < kColumns; ++c) {
            const Vec k = Vec::load(key + c * Vec::kLanes);
            for (int r = 0; r < R; ++r) {
              acc[r][c] = Vec::fma(Vec::set1(q[r * padded(dim) + d]), k, acc[r][c]);
            }
          }
        }
        for (int r = 0; r < R; ++r) {
          for (int c = 0; c < kColumns; ++c) {
            acc[r][c].store(s.scores + (row + r) * kPageTokens + j + c * Vec::kLanes);
          }
        }
      });
    }
  }
}

// Positions within a page.
alignas(64) constexpr auto kPlaces = [] {
  std::array<float, kPageTokens> places = {};
  for (size_t j = 0; j < places.size(); ++j) places[j] = static_cast<float>(j);
  return places;
}();

// What a model does to scores before the softmax: they are capped, and ALiBi adds a slope times the
// distance from the query, which is `behind` positions behind the page's first.
inline void adjust_scores(float* scores, const AttentionRules& rules, int64_t head,
                          int64_t behind) noexcept {
  if (rules.cap > 0) {
    const Vec cap = Vec::set1(rules.cap), inverse = Vec::set1(1 / rules.cap);
    for (int64_t j = 0; j < kPageTokens; j += Vec::kLanes) {
      (cap * tanh(Vec::load(scores + j) * inverse)).store(scores + j);
    }
  }
  if (rules.slopes.empty()) return;
  const Vec slope = Vec::set1(rules.slopes[static_cast<size_t>(head)]);
  const Vec from = Vec::set1(static_cast<float>(behind));
  for (int64_t j = 0; j < kPageTokens; j += Vec::kLanes) {
    Vec::fma(slope, Vec::load(kPlaces.data() + j) - from, Vec::load(scores + j)).store(scores + j);
  }
}

// Scores of row r become weights e^(score - maximum); its carry is set. Only positions in
// [low, high) count; the others get weight 0.
inline void weigh_row(const AttentionScratch& s, int64_t r, int64_t low, int64_t high) noexcept {
  float* scores = s.scores + r * kPageTokens;
  if (low >= high) {
    std::fill(scores, scores + kPageTokens, 0.0f);
    s.carry[r] = 1;
    return;
  }
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  std::fill(scores, scores + low, kNone);
  std::fill(scores + high, scores + kPageTokens, kNone);
  Vec best = Vec::load(scores);
  for (int64_t j = Vec::kLanes; j < kPageTokens; j += Vec::kLanes) {
    best = Vec::max(best, Vec::load(scores + j));
  }
  const float largest = std::max(s.largest[r], best.largest());
  Vec sum = Vec::zero();
  for (int64_t j = 0; j < kPageTokens; j += Vec::kLanes) {
    exp(Vec::load(scores + j) - Vec::set1(largest)).store(scores + j);
  }
  std::fill(scores, scores + low, 0.0f);
  std::fill(scores + high, scores + kPageTokens, 0.0f);
  for (int64_t j = 0; j < kPageTokens; j += Vec::kLanes) sum = sum + Vec::load(scores + j);
  const float carry = s.largest[r] == kNone ? 0.0f : std::exp(s.largest[r] - largest);
  s.largest[r] = largest;
  s.total[r] = s.total[r] * carry + sum.sum();
  s.carry[r] = carry;
}

// sums[r] = sums[r] · carry[r] + Σ weight[r][j] · value j over the positions [0, used).
inline void add_values(const AttentionScratch& s, int64_t dim, int64_t row, int64_t rows,
                       int64_t used) noexcept {
  const int64_t stride = padded(dim);
  const auto columns = [&](int64_t d, auto count) {
    constexpr int C = count;
    with_constant<Vec::kTileRows>(rows, [&](auto n) {
      constexpr int R = n;
      Vec acc[R][C];
      for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) {
          acc[r][c] = Vec::load(s.sums + (row + r) * stride + d + c * Vec::kLanes) *
                      Vec::set1(s.carry[row + r]);
        }
      }
      for (int64_t j = 0; j < used; ++j) {
        const float* value = s.values + j * stride + d;
        for (int c = 0; c < C; ++c) {
          const Vec v = Vec::load(value + c * Vec::kLanes);
          for (int r = 0; r < R; ++r) {
            acc[r][c] = Vec::fma(Vec::set1(s.scores[(row + r) * kPageTokens + j]), v, acc[r][c]);
          }
        }
      }
      for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) {
          acc[r][c].store(s.sums + (row + r) * stride + d + c * Vec::kLanes);
        }
      }
    });
  };
  int64_t d = 0;
  for (; d + 4 * Vec::kLanes <= stride; d += 4 * Vec::kLanes) {
    columns(d, std::integral_constant<int, 4>{});
  }
  for (; d < stride; d += Vec::kLanes) columns(d, std::integral_constant<int, 1>{});
}

// Adds a part to the parts before it. Not inlined: its callers must get the same bits.
[[gnu::noinline]] void fold_part(float* sums, float& largest, float& total, const float* part_sums,
                                 float part_largest, float part_total, int64_t dim) noexcept {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  if (part_largest == kNone) return;  // the window leaves nothing of it
  const float most = std::max(largest, part_largest);
  const float before = largest == kNone ? 0.0f : std::exp(largest - most);
  const float weight = std::exp(part_largest - most);
  for (int64_t d = 0; d < dim; ++d) sums[d] = sums[d] * before + part_sums[d] * weight;
  total = total * before + part_total * weight;
  largest = most;
}

void attention(MutHeads out, ConstHeads q, const KvLayout& layout, const AttentionSpan& span,
               const float* scale, const AttentionRules& rules, int64_t kv_head, int64_t first,
               int64_t count, float* scratch) noexcept {
  const int64_t window = rules.window;
  const int64_t dim = layout.head_dim, stride = padded(dim);
  const int64_t group = q.heads / layout.kv_heads;
  const int64_t rows = count * group;
  const AttentionScratch s(scratch, dim, kAttentionQueries * group);
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const auto begin_part = [&] {
    std::fill(s.sums, s.sums + rows * stride, 0.0f);
    std::fill(s.largest, s.largest + rows, kNone);
    std::fill(s.total, s.total + rows, 0.0f);
  };
  for (int64_t i = 0; i < count; ++i) {
    const int64_t token = span.first_row + first + i;
    for (int64_t g = 0; g < group; ++g) {
      const int64_t r = i * group + g;
      const float* query = q.at(token, kv_head * group + g);
      for (int64_t d = 0; d < dim; ++d) s.q[r * stride + d] = query[d] * scale[token];
      float* whole = s.whole + r * (stride + 2);
      std::fill(whole, whole + stride, 0.0f);
      whole[stride] = kNone;
      whole[stride + 1] = 0;
    }
  }
  begin_part();

  const int64_t newest = span.first_position + first + count - 1;
  const int64_t oldest_query = span.first_position + first;
  const int64_t oldest = window > 0 ? std::max<int64_t>(0, oldest_query - window + 1) : 0;
  for (int64_t p = oldest / kPageTokens; p * kPageTokens <= newest; ++p) {
    const int64_t base = p * kPageTokens;
    const int64_t used = std::min(kPageTokens, newest + 1 - base);
    decode_page(s, layout, span.kv.pages[p] + span.kv.layer_offset, kv_head, used);
    score_page(s, dim, rows, used);
    for (int64_t row = 0; row < rows; row += Vec::kTileRows) {
      const int64_t tile = std::min<int64_t>(Vec::kTileRows, rows - row);
      for (int64_t r = 0; r < tile; ++r) {
        const int64_t position = span.first_position + first + (row + r) / group;
        const int64_t low = window > 0 ? std::max<int64_t>(0, position - window + 1 - base) : 0;
        const int64_t high = std::min(kPageTokens, position + 1 - base);
        if (rules.adjust()) {
          adjust_scores(s.scores + (row + r) * kPageTokens, rules,
                        kv_head * group + (row + r) % group, position - base);
        }
        weigh_row(s, row + r, std::min(low, kPageTokens), std::max<int64_t>(high, 0));
      }
      add_values(s, dim, row, tile, used);
    }
    const bool part_ends = (base + kPageTokens) % kAttentionPart == 0;
    if (!part_ends && base + kPageTokens <= newest) continue;
    for (int64_t r = 0; r < rows; ++r) {
      float* whole = s.whole + r * (stride + 2);
      fold_part(whole, whole[stride], whole[stride + 1], s.sums + r * stride, s.largest[r],
                s.total[r], dim);
    }
    begin_part();
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* target = out.at(span.first_row + first + r / group, kv_head * group + r % group);
    const float* whole = s.whole + r * (stride + 2);
    const float inverse = 1 / whole[stride + 1];
    for (int64_t d = 0; d < dim; ++d) target[d] = whole[d] * inverse;
  }
}
