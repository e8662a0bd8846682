// Attention of one query over a part of the past. Keys and values are read once, in their stored
// form; the order of sums is that of attention.inl, so that a query gets its bits.

// scores[r][j] = q[r] · key j over the whole page, whose first `used` positions matter.
template <class T>
inline void score_stored(const AttentionScratch& s, const T* keys, int64_t dim, int64_t rows,
                         int64_t used) noexcept {
  constexpr int64_t kAll = kPageTokens / Vec::kLanes;
  const auto columns = [&](int64_t row, int64_t j, auto height, auto width) {
    constexpr int R = height;
    constexpr int C = width;
    Vec acc[R][C] = {};
    const float* q = s.q + row * padded(dim);
    for (int64_t d = 0; d < dim; ++d) {
      const T* key = keys + d * kPageTokens + j;
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        const Vec k = load_as(key + c * Vec::kLanes);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          acc[r][c] = Vec::fma(Vec::set1(q[r * padded(dim) + d]), k, acc[r][c]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) {
        acc[r][c].store(s.scores + (row + r) * kPageTokens + j + c * Vec::kLanes);
      }
    }
  };
  constexpr int kNarrow = 4;
  if (rows == 1 && used > kNarrow * Vec::kLanes) {
    columns(0, 0, std::integral_constant<int, 1>{}, std::integral_constant<int, int{kAll}>{});
    return;
  }
  for (int64_t row = 0; row < rows; row += Vec::kTileRows) {
    with_constant<Vec::kTileRows>(std::min<int64_t>(Vec::kTileRows, rows - row), [&](auto n) {
      for (int64_t j = 0; j < used; j += kNarrow * Vec::kLanes) {
        columns(row, j, n, std::integral_constant<int, kNarrow>{});
      }
    });
  }
}

// sums[r] = sums[r] · carry[r] + Σ weight[r][j] · value j over the positions [low, high). Where the
// registers do not take all dims at once, some positions' values go through the first cache at a
// time, so that memory is read in one stretch.
template <class T>
inline void add_stored(const AttentionScratch& s, const T* values, int64_t dim, int64_t row,
                       int64_t rows, int64_t low, int64_t high) noexcept {
  const int64_t stride = padded(dim);
  const auto columns = [&](int64_t begin, int64_t end, int64_t d, auto height, auto width) {
    constexpr int R = height;
    constexpr int C = width;
    Vec acc[R][C];
    for (int r = 0; r < R; ++r) {
      const Vec carry = Vec::set1(begin == low ? s.carry[row + r] : 1);
      for (int c = 0; c < C; ++c) {
        acc[r][c] = Vec::load(s.sums + (row + r) * stride + d + c * Vec::kLanes) * carry;
      }
    }
    for (int64_t j = begin; j < end; ++j) {
      const T* value = values + j * dim + d;
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        const Vec v = load_as(value + c * Vec::kLanes);
#pragma GCC unroll 4
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
  };
  with_constant<Vec::kTileRows>(rows, [&](auto n) {
    constexpr int kSome = 4, kMost = n == 1 ? 2 * kSome : kSome;
    const bool at_once = dim == kSome * Vec::kLanes || dim == kMost * Vec::kLanes;
    const int64_t step = at_once ? kPageTokens : kPageTokens / 4;
    for (int64_t begin = low; begin < high; begin += step) {
      const int64_t end = std::min(begin + step, high);
      int64_t d = 0;
      for (; d + kMost * Vec::kLanes <= dim; d += kMost * Vec::kLanes) {
        columns(begin, end, d, n, std::integral_constant<int, kMost>{});
      }
      for (; d + kSome * Vec::kLanes <= dim; d += kSome * Vec::kLanes) {
        columns(begin, end, d, n, std::integral_constant<int, kSome>{});
      }
      for (; d < dim; d += Vec::kLanes) {
        columns(begin, end, d, n, std::integral_constant<int, 1>{});
      }
    }
  });
}

// A page of the kv heads [first, end). First the keys of all these heads, then their values: each
// lie side by side.
template <class T>
void attend_page(const AttentionScratch& scratch, const KvLayout& layout, const std::byte* page,
                 const AttentionRules& rules, int64_t behind, int64_t first, int64_t end,
                 int64_t rows, int64_t low, int64_t high) noexcept {
  const int64_t dim = layout.head_dim;
  const std::byte* value_block = page + layout.block_bytes();
  for (int64_t head = first; head < end; ++head) {
    const AttentionScratch s = scratch.from_row((head - first) * rows, dim);
    score_stored(s, stored<T>(page + layout.elements_at(head)), dim, rows, high);
    for (int64_t r = 0; r < rows; ++r) {
      if (rules.adjust()) {
        adjust_scores(s.scores + r * kPageTokens, rules, head * rows + r, behind);
      }
      weigh_row(s, r, low, high);
    }
  }
  for (int64_t head = first; head < end; ++head) {
    const AttentionScratch s = scratch.from_row((head - first) * rows, dim);
    const T* values = stored<T>(value_block + layout.elements_at(head));
    for (int64_t row = 0; row < rows; row += Vec::kTileRows) {
      add_stored(s, values, dim, row, std::min<int64_t>(Vec::kTileRows, rows - row), low, high);
    }
  }
}

void attention_parts(const AttentionPart& part, int64_t part_step, ConstHeads q,
                     const KvLayout& layout, const AttentionSpan& span, float scale,
                     const AttentionRules& rules, int64_t first_head, int64_t end_head,
                     int64_t begin, int64_t end, float* memory) noexcept {
  const int64_t dim = layout.head_dim, stride = padded(dim);
  const int64_t rows = q.heads / layout.kv_heads;  // of a kv head
  const AttentionScratch scratch(memory, dim, kAttentionQueries * rows);
  const int64_t all_rows = (end_head - first_head) * rows;
  const bool bytes = layout.of_bytes() && dim <= kMostByteDims;
  for (int64_t r = 0; r < all_rows; ++r) {
    const float* query = q.at(span.first_row, first_head * rows + r);
    float* row = scratch.q + r * stride;
    for (int64_t d = 0; d < dim; ++d) row[d] = query[d] * scale;
    if (bytes) round_query(scratch, r, dim);
    scratch.largest[r] = -std::numeric_limits<float>::infinity();
    scratch.total[r] = 0;
  }
  std::fill(scratch.sums, scratch.sums + all_rows * stride, 0.0f);
  // Vectors of values must not reach past a head's own, nor past the page.
  const bool whole_vectors = dim % Vec::kLanes == 0;
  for (int64_t p = begin / kPageTokens; p * kPageTokens < end; ++p) {
    const int64_t base = p * kPageTokens;
    const int64_t low = std::max<int64_t>(0, begin - base);
    const int64_t high = std::min(kPageTokens, end - base);
    const std::byte* page = span.kv.pages[p] + span.kv.layer_offset;
    const int64_t behind = span.first_position - base;
    if (bytes) {
      attend_page_of_bytes(scratch, layout, page, rules, behind, first_head, end_head, rows, low,
                           high);
      continue;
    }
    if (whole_vectors && !layout.of_bytes()) {
      const auto attend = [&](auto tag) {
        attend_page<decltype(tag)>(scratch, layout, page, rules, behind, first_head, end_head, rows,
                                   low, high);
      };
      switch (layout.dtype) {
        case DType::F16:
          attend(F16{});
          break;
        case DType::BF16:
          attend(Bf16{});
          break;
        default:
          attend(float{});
          break;
      }
      continue;
    }
    for (int64_t head = first_head; head < end_head; ++head) {
      const AttentionScratch s = scratch.from_row((head - first_head) * rows, dim);
      decode_page(s, layout, page, head, high);
      score_page(s, dim, rows, high);
      for (int64_t row = 0; row < rows; row += Vec::kTileRows) {
        const int64_t tile = std::min<int64_t>(Vec::kTileRows, rows - row);
        for (int64_t r = row; r < row + tile; ++r) {
          if (rules.adjust()) {
            adjust_scores(s.scores + r * kPageTokens, rules, head * rows + r, behind);
          }
          weigh_row(s, r, low, high);
        }
        add_values(s, dim, row, tile, high);
      }
    }
  }
  for (int64_t r = 0; r < all_rows; ++r) {
    const int64_t head = r / rows, own = r % rows;
    std::copy_n(scratch.sums + r * stride, dim, part.sums + head * part_step + own * dim);
    part.largest[head * part_step + own] = scratch.largest[r];
    part.total[head * part_step + own] = scratch.total[r];
  }
}

void attention_merge(float* out, const AttentionPart& first, int64_t parts, int64_t group,
                     int64_t head_dim) noexcept {
  const int64_t step = AttentionPart::floats(group, head_dim);
  for (int64_t r = 0; r < group; ++r) {
    float largest = -std::numeric_limits<float>::infinity(), total = 0;
    float* head = out + r * head_dim;
    std::fill(head, head + head_dim, 0.0f);
    for (int64_t p = 0; p < parts; ++p) {
      fold_part(head, largest, total, first.sums + p * step + r * head_dim,
                first.largest[p * step + r], first.total[p * step + r], head_dim);
    }
    const float inverse = 1 / total;
    for (int64_t d = 0; d < head_dim; ++d) head[d] *= inverse;
  }
}
