// Dense causal attention and its gradients, block by block (FlashAttention-2, Dao 2023). Scores are
// computed transposed, [keys, queries]: a lane is a query, so that the softmax needs no sums across
// a vector and a row of tiles ends where its last query stops seeing. Factors are copied into the
// layouts that tiles read, head dims padded with zeros to whole tiles:
//   rows      [head_dim / kTileCols][rows][kTileCols]: left factor with the head's dims as depth,
//   and rights    the same, or its like for pairs: right factor with rows as depth; columns   [rows
//   / kTileCols][head_dim][kTileCols]: right factor with the head's dims as depth.
// `Factors` says what products are computed in.

constexpr int64_t kQueryBlock = 96;
constexpr int64_t kKeyBlock = 96;
static_assert(kQueryBlock % kTileRows == 0 && kQueryBlock % kTileCols == 0 &&
              kKeyBlock % kTileRows == 0 && kTileRows % 2 == 0);
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;
constexpr float kUnseen = -3e38f;  // the score of a key that a query does not see

inline int64_t round_up(int64_t x, int64_t to) noexcept { return (x + to - 1) / to * to; }

// Calls body(dims' vector d of row i) over what a head's rows hold, zeros where they hold nothing.
template <class Body>
inline void for_row_vectors(ConstHeads x, int64_t head, int64_t first, int64_t rows, int64_t padded,
                            const Body& body) noexcept {
  const int64_t dims = round_up(x.head_dim, kTileCols);
  for (int64_t d = 0; d < dims; d += Vec::kLanes) {
    for (int64_t i = 0; i < padded; ++i) {
      body(d, i, i < rows ? load_some(x.at(first + i, head) + d, x.head_dim - d) : Vec::zero());
    }
  }
}

// Where the vector d of row i begins in slices.
inline int64_t slice_offset(int64_t d, int64_t i, int64_t padded) noexcept {
  return (d / kTileCols * padded + i) * kTileCols + d % kTileCols;
}

struct FloatFactors {
  using Element = float;

  static void pack_rows(float* out, ConstHeads x, int64_t head, int64_t rows,
                        int64_t padded) noexcept {
    for_row_vectors(x, head, 0, rows, padded, [&](int64_t d, int64_t i, Vec v) {
      v.store(out + slice_offset(d, i, padded));
    });
  }
  static void pack_rights(float* out, ConstHeads x, int64_t head, int64_t rows,
                          int64_t padded) noexcept {
    pack_rows(out, x, head, rows, padded);
  }
  // Rows [first, first + rows) times `factor`; `padded` is a multiple of kTileCols.
  static void pack_columns(float* out, ConstHeads x, int64_t head, int64_t first, int64_t rows,
                           int64_t padded, float factor) noexcept {
    const int64_t dims = round_up(x.head_dim, kTileCols);
    const Vec scale = Vec::set1(factor);
    for (int64_t i = 0; i < padded; i += Vec::kLanes) {
      float* panel = out + i / kTileCols * dims * kTileCols + i % kTileCols;
      for (int64_t d = 0; d < dims; d += Vec::kLanes) {
        Vec block[Vec::kLanes];
        for (int64_t r = 0; r < Vec::kLanes; ++r) {
          block[r] = i + r < rows ? load_some(x.at(first + i + r, head) + d, x.head_dim - d) * scale
                                  : Vec::zero();
        }
        Vec::transpose(block);
        for (int64_t c = 0; c < Vec::kLanes; ++c) block[c].store(panel + (d + c) * kTileCols);
      }
    }
  }

  // tile += left [kTileRows, kTileCols], a slice's rows, times right [kTileCols, kTileCols].
  [[gnu::always_inline]] static inline void multiply_slice(Tile& tile, const float* left,
                                                           const float* right) noexcept {
    tile.multiply<kTileCols, 1>(left, right, kTileCols);
  }
  // Weights [keys, kQueryBlock] are stored by rows, for products over queries, and by pairs, for
  // products over keys: one and the same here.
  static constexpr bool kPairsAreRows = true;
  [[gnu::always_inline]] static inline void store_rows(float* rows, const Tile& tile) noexcept {
    tile.store(rows, kQueryBlock);
  }
  [[gnu::always_inline]] static inline void store_pairs(float* pairs, const Tile& tile) noexcept {
    tile.store(pairs, kQueryBlock);
  }
  // For two neighbouring keys.
  [[gnu::always_inline]] static inline void store_pair(float* pairs, Vec even, Vec odd) noexcept {
    even.store(pairs);
    odd.store(pairs + kQueryBlock);
  }
  [[gnu::always_inline]] static inline float* pair_at(float* pairs, int64_t key,
                                                      int64_t query) noexcept {
    return pairs + key * kQueryBlock + query;
  }
  [[gnu::always_inline]] static inline void multiply_rows(Tile& tile, const float* rows,
                                                          const float* right,
                                                          int64_t depth) noexcept {
    tile.multiply<kQueryBlock, 1>(rows, right, depth);
  }
  [[gnu::always_inline]] static inline void multiply_pairs(Tile& tile, const float* pairs,
                                                           const float* right,
                                                           int64_t depth) noexcept {
    tile.multiply<1, kQueryBlock>(pairs, right, depth);
  }
};

// A tile of left · columns over all dims: left in slices `slice` elements apart.
template <class Factors>
[[gnu::always_inline]] inline void multiply_dims(Tile& tile, const typename Factors::Element* left,
                                                 int64_t slice,
                                                 const typename Factors::Element* columns,
                                                 int64_t dims) noexcept {
  tile.clear();
  for (int64_t d = 0; d < dims; d += kTileCols) {
    Factors::multiply_slice(tile, left + d / kTileCols * slice, columns + d * kTileCols);
  }
}

inline int64_t first_visible(const AttentionTask& task, int64_t position) noexcept {
  int64_t first = task.starts != nullptr ? task.starts[position] : 0;
  if (task.rules.window > 0) first = std::max(first, position - task.rules.window + 1);
  return first;
}

// What the queries of a block see, as floats that lanes compare with a key's position.
struct Visibility {
  float last[kQueryBlock];   // a query's own position
  float first[kQueryBlock];  // the first that it sees
  // By panel: the first position that any lane sees, and the first that all of them see.
  int64_t any[kQueryBlock / kTileCols], all[kQueryBlock / kTileCols];

  Visibility(const AttentionTask& task, int64_t first_query) noexcept {
    for (int64_t q = 0; q < kQueryBlock; ++q) {
      const int64_t position = std::min(first_query + q, task.seq - 1);
      const int64_t seen = first_visible(task, position);
      last[q] = static_cast<float>(first_query + q);
      first[q] = static_cast<float>(seen);
      if (q % kTileCols == 0) any[q / kTileCols] = seen;
      all[q / kTileCols] = seen;
    }
  }
  // `value` where the query of the lane sees the key, else `other`.
  [[gnu::always_inline]] inline Vec seen(int64_t query, int64_t key, Vec value,
                                         Vec other) const noexcept {
    const Vec position = Vec::set1(static_cast<float>(key));
    value = Vec::select_at_least(Vec::load(last + query), position, value, other);
    return Vec::select_at_least(position, Vec::load(first + query), value, other);
  }
};

// What the model does to scores, in powers of two: see AttentionRules.
struct ScoreRules {
  float cap = 0, slope = 0;

  ScoreRules(const AttentionTask& task, int64_t head) noexcept : cap(task.rules.cap * kLog2E) {
    if (!task.rules.slopes.empty()) {
      slope = task.rules.slopes[static_cast<size_t>(head)] * kLog2E;
    }
  }
  bool adjust() const noexcept { return cap > 0 || slope != 0; }

  // Scores of the queries of lanes `query` on against the keys from `key` on. `slopes`, where it isn't null,
  // gets the capped score's derivative by the score [kTileRows, kTileCols].
  void apply(Tile& tile, const Visibility& visible, int64_t query, int64_t key,
             float* slopes) const noexcept {
    const Vec one = Vec::set1(1);
    for (int half = 0; half < 2; ++half) {
      const Vec position = Vec::load(visible.last + query + half * Vec::kLanes);
      for (int i = 0; i < kTileRows; ++i) {
        Vec& score = tile.sums[i][half];
        Vec derivative = one;
        if (cap > 0) {
          const Vec share = tanh(score * Vec::set1(1 / cap));
          score = share * Vec::set1(cap);
          derivative = one - share * share;
        }
        if (slope != 0) {
          const Vec distance = Vec::set1(static_cast<float>(key + i)) - position;
          score = Vec::fma(Vec::set1(slope), distance, score);
        }
        if (slopes != nullptr) derivative.store(slopes + i * kTileCols + half * Vec::kLanes);
      }
    }
  }
};

int64_t attention_training_scratch_floats(int64_t seq, int64_t head_dim) noexcept {
  const int64_t dims = round_up(head_dim, kTileCols), keys = round_up(seq, kKeyBlock);
  return 2 * keys * dims + 2 * kQueryBlock * dims + 2 * kQueryBlock * kKeyBlock;
}

// The softmax of a panel of queries over the keys [begin, end) of a block: scores become weights,
// in pairs. `largest` and `denominator` are of kTileCols queries; `shrink` is what older sums are
// to be multiplied by. Scores and references are in powers of two.
template <class Factors>
inline void weigh_panel(typename Factors::Element* pairs, float* scores, int64_t query,
                        int64_t begin, int64_t end, float* largest, float* denominator,
                        float* shrink) noexcept {
  for (int64_t j = 0; j < kTileCols; j += Vec::kLanes) {
    float* column = scores + query + j;
    const Vec before = Vec::load(largest + query + j);
    Vec tops[2] = {before, before};
    for (int64_t k = begin; k < end; k += 2) {
      tops[0] = Vec::max(tops[0], Vec::load(column + k * kQueryBlock));
      tops[1] = Vec::max(tops[1], Vec::load(column + (k + 1) * kQueryBlock));
    }
    const Vec top = Vec::max(tops[0], tops[1]);
    Vec sums[2] = {Vec::zero(), Vec::zero()};
    for (int64_t k = begin; k < end; k += 2) {
      const Vec even = exp2(Vec::load(column + k * kQueryBlock) - top);
      const Vec odd = exp2(Vec::load(column + (k + 1) * kQueryBlock) - top);
      sums[0] = sums[0] + even;
      sums[1] = sums[1] + odd;
      Factors::store_pair(Factors::pair_at(pairs, k, query + j), even, odd);
    }
    const Vec factor = exp2(before - top);
    factor.store(shrink + query + j);
    top.store(largest + query + j);
    Vec::fma(Vec::load(denominator + query + j), factor, sums[0] + sums[1])
        .store(denominator + query + j);
  }
}

template <class Factors>
void attention_training(const AttentionTask& task, MutHeads out, MutRows log_sum,
                        float* scratch) noexcept {
  using Element = typename Factors::Element;
  const int64_t seq = task.seq, head_dim = task.q.head_dim;
  const int64_t dims = round_up(head_dim, kTileCols), padded = round_up(seq, kKeyBlock);
  auto* keys = reinterpret_cast<Element*>(scratch);                         // rows
  auto* values = reinterpret_cast<Element*>(scratch + padded * dims);       // rights
  auto* queries = reinterpret_cast<Element*>(scratch + 2 * padded * dims);  // columns
  float* sums = scratch + 2 * padded * dims + kQueryBlock * dims;           // [kQueryBlock, dims]
  float* scores = sums + kQueryBlock * dims;  // [kKeyBlock, kQueryBlock]
  auto* weights = reinterpret_cast<Element*>(scores + kKeyBlock * kQueryBlock);  // pairs
  Factors::pack_rows(keys, task.k, task.kv_head, seq, padded);
  Factors::pack_rights(values, task.v, task.kv_head, seq, padded);

  const int64_t group = task.q.heads / task.k.heads, slice = padded * kTileCols;
  for (int64_t head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head) {
    for (int64_t first = 0; first < seq; first += kQueryBlock) {
      const int64_t count = std::min(kQueryBlock, seq - first);
      const int64_t lanes = round_up(count, kTileCols), rows = round_up(count, kTileRows);
      const Visibility visible(task, first);
      const ScoreRules rules(task, head);
      Factors::pack_columns(queries, task.q, head, first, count, lanes, task.scale * kLog2E);
      std::fill_n(sums, kQueryBlock * dims, 0.0f);
      alignas(64) float largest[kQueryBlock], denominator[kQueryBlock], shrink[kQueryBlock];
      std::fill_n(largest, kQueryBlock, kUnseen);
      std::fill_n(denominator, kQueryBlock, 0.0f);

      const int64_t last_block = first + count - 1;
      for (int64_t block = visible.any[0] / kKeyBlock * kKeyBlock; block <= last_block;
           block += kKeyBlock) {
        // The keys that any query of the block sees, in whole tiles.
        const auto tiles_from = [&](int64_t position) {
          return std::max<int64_t>(position - block, 0) / kTileRows * kTileRows;
        };
        const auto tiles_to = [&](int64_t position) {
          return std::min(round_up(position + 1 - block, kTileRows), kKeyBlock);
        };
        const int64_t block_begin = tiles_from(visible.any[0]), block_end = tiles_to(last_block);
        for (int64_t query = 0; query < lanes; query += kTileCols) {
          const int64_t panel = query / kTileCols;
          const int64_t last_query = std::min(first + query + kTileCols, seq) - 1;
          const int64_t begin = std::min(tiles_from(visible.any[panel]), block_end);
          const int64_t end = std::max(tiles_to(last_query), begin);
          for (int64_t key = begin; key < end; key += kTileRows) {
            Tile tile;
            multiply_dims<Factors>(tile, keys + (block + key) * kTileCols, slice,
                                   queries + query * dims, dims);
            if (rules.adjust()) rules.apply(tile, visible, query, block + key, nullptr);
            const bool all_seen =
                block + key + kTileRows - 1 <= first + query && block + key >= visible.all[panel];
            if (!all_seen) {
              for (int i = 0; i < kTileRows; ++i) {
                for (int half = 0; half < 2; ++half) {
                  Vec& sum = tile.sums[i][half];
                  sum = visible.seen(query + half * Vec::kLanes, block + key + i, sum,
                                     Vec::set1(kUnseen));
                }
              }
            }
            tile.store(scores + key * kQueryBlock + query, kQueryBlock);
          }
          weigh_panel<Factors>(weights, scores, query, begin, end, largest, denominator, shrink);
          const auto clear = [&](int64_t from, int64_t to) {
            for (int64_t key = from; key < to; key += 2) {
              for (int64_t j = 0; j < kTileCols; j += Vec::kLanes) {
                Factors::store_pair(Factors::pair_at(weights, key, query + j), Vec::zero(),
                                    Vec::zero());
              }
            }
          };
          clear(block_begin, begin);
          clear(end, block_end);
        }
        for (int64_t row = 0; row < rows; ++row) {
          if (shrink[row] == 1) continue;
          for (int64_t d = 0; d < dims; d += Vec::kLanes) {
            float* sum = sums + row * dims + d;
            (Vec::load(sum) * Vec::set1(shrink[row])).store(sum);
          }
        }
        for (int64_t row = 0; row < rows; row += kTileRows) {
          const int64_t end = tiles_to(std::min(first + row + kTileRows - 1, last_block));
          for (int64_t d = 0; d < dims; d += kTileCols) {
            Tile tile;
            tile.clear();
            Factors::multiply_pairs(tile, Factors::pair_at(weights, block_begin, row),
                                    values + slice_offset(d, block + block_begin, padded),
                                    end - block_begin);
            tile.add_to(sums + row * dims + d, dims);
          }
        }
      }
      for (int64_t r = 0; r < count; ++r) {
        float* to = out.at(first + r, head);
        const Vec inverse = Vec::set1(1.0f / denominator[r]);
        for_lanes(head_dim, [&](int64_t d, int64_t n) {
          (Vec::load_n(sums + r * dims + d, n) * inverse).store_n(to + d, n);
        });
        log_sum.row(first + r)[head] = largest[r] * kLn2 + std::log(denominator[r]);
      }
    }
  }
}

int64_t attention_training_backward_scratch_floats(int64_t seq, int64_t head_dim,
                                                   int64_t group) noexcept {
  const int64_t dims = round_up(head_dim, kTileCols);
  const int64_t keys = round_up(seq, kKeyBlock), queries = round_up(seq, kQueryBlock);
  return 2 * keys * dims + group * queries * (5 * dims + 2) + 2 * kKeyBlock * dims +
         3 * kTileRows * kQueryBlock + kQueryBlock * kKeyBlock;
}

// With P = softmax(S), S = scale · q · kᵀ, D = rowsum(d_out ∘ out):
//   d_v = Pᵀ · d_out, dS = P ∘ (d_out · vᵀ - D), d_q = scale · dS · k, d_k = scale · dSᵀ · q.
// Blocks of keys outside, blocks of queries inside, every sum in this order.
template <class Factors>
void attention_training_backward(const AttentionTask& task, const AttentionGradients& gradients,
                                 float* scratch) noexcept {
  using Element = typename Factors::Element;
  const int64_t seq = task.seq, head_dim = task.q.head_dim;
  const int64_t dims = round_up(head_dim, kTileCols);
  const int64_t padded_keys = round_up(seq, kKeyBlock), padded = round_up(seq, kQueryBlock);
  const int64_t group = task.q.heads / task.k.heads, first_head = task.kv_head * group;
  const auto taken = [&scratch](int64_t floats) {
    float* block = scratch;
    scratch += floats;
    return block;
  };
  const auto elements = [&](int64_t count) {
    return reinterpret_cast<Element*>(taken(count * int64_t{sizeof(Element)} / 4));
  };
  Element* values = elements(padded_keys * dims);  // rows
  Element* keys = elements(padded_keys * dims);    // rows, and rights:
  Element* key_rights = Factors::kPairsAreRows ? keys : elements(padded_keys * dims);
  Element* queries = elements(group * padded * dims);          // [group] columns
  Element* d_outs = elements(group * padded * dims);           // [group] columns
  Element* query_rights = elements(group * padded * dims);     // [group] rights
  Element* d_out_rights = elements(group * padded * dims);     // [group] rights
  float* d_queries = taken(group * padded * dims);             // [group][padded, dims]
  float* deltas = taken(group * padded);                       // [group][padded]
  float* log_sums = taken(group * padded);                     // [group][padded], of powers of two
  float* d_keys = taken(kKeyBlock * dims);                     // [kKeyBlock, dims]
  float* d_values = taken(kKeyBlock * dims);                   // [kKeyBlock, dims]
  Element* weights = elements(kTileRows * kQueryBlock);        // a tile of keys by rows
  Element* d_scores = elements(kTileRows * kQueryBlock);       // a tile of keys by rows
  Element* d_score_pairs = elements(kKeyBlock * kQueryBlock);  // a block of keys by pairs

  Factors::pack_rows(keys, task.k, task.kv_head, seq, padded_keys);
  if (!Factors::kPairsAreRows) {
    Factors::pack_rights(key_rights, task.k, task.kv_head, seq, padded_keys);
  }
  Factors::pack_rows(values, task.v, task.kv_head, seq, padded_keys);
  std::fill_n(d_queries, group * padded * dims, 0.0f);
  for (int64_t h = 0; h < group; ++h) {
    const int64_t head = first_head + h, at = h * padded * dims;
    Factors::pack_columns(queries + at, task.q, head, 0, seq, padded, task.scale * kLog2E);
    Factors::pack_rights(query_rights + at, task.q, head, seq, padded);
    Factors::pack_columns(d_outs + at, gradients.d_out, head, 0, seq, padded, 1);
    Factors::pack_rights(d_out_rights + at, gradients.d_out, head, seq, padded);
    for (int64_t t = 0; t < padded; ++t) {
      Vec sum = Vec::zero();
      if (t < seq) {
        const float* d_out = gradients.d_out.at(t, head);
        const float* out = gradients.out.at(t, head);
        for_lanes(head_dim, [&](int64_t d, int64_t n) {
          sum = Vec::fma(Vec::load_n(d_out + d, n), Vec::load_n(out + d, n), sum);
        });
      }
      deltas[h * padded + t] = sum.sum() / task.out_scale;
      log_sums[h * padded + t] = t < seq ? gradients.log_sum.row(t)[head] * kLog2E : 0;
    }
  }

  const int64_t slice = padded_keys * kTileCols;
  for (int64_t block = 0; block < seq; block += kKeyBlock) {
    const int64_t keys_here = std::min(kKeyBlock, seq - block);
    std::fill_n(d_keys, kKeyBlock * dims, 0.0f);
    std::fill_n(d_values, kKeyBlock * dims, 0.0f);
    for (int64_t h = 0; h < group; ++h) {
      for (int64_t first = block / kQueryBlock * kQueryBlock; first < seq; first += kQueryBlock) {
        // First positions never fall: once a block of queries is past this one, all later are.
        if (first_visible(task, first) >= block + kKeyBlock) break;
        const int64_t at = h * padded + first, count = std::min(kQueryBlock, seq - first);
        const int64_t lanes = round_up(count, kTileCols);
        const Visibility visible(task, first);
        const ScoreRules rules(task, first_head + h);
        for (int64_t key = 0; key < keys_here; key += kTileRows) {
          const int64_t first_key = block + key, last_key = first_key + kTileRows - 1;
          int64_t from = lanes, to = 0;  // the queries that may see one of these keys
          for (int64_t query = 0; query < lanes; query += kTileCols) {
            const int64_t panel = query / kTileCols;
            Element* pairs = Factors::pair_at(d_score_pairs, key, query);
            if (first_key >= first + query + kTileCols || last_key < visible.any[panel]) {
              Tile nothing;
              nothing.clear();
              Factors::store_pairs(pairs, nothing);
              if (from < lanes) Factors::store_rows(weights + query, nothing);
              if (from < lanes) Factors::store_rows(d_scores + query, nothing);
              continue;
            }
            from = std::min(from, query);
            to = query + kTileCols;
            alignas(64) float probabilities[kTileRows * kTileCols];
            alignas(64) float slopes[kTileRows * kTileCols];
            Tile tile;
            multiply_dims<Factors>(tile, keys + first_key * kTileCols, slice,
                                   queries + (at + query) * dims, dims);
            if (rules.adjust()) rules.apply(tile, visible, query, first_key, slopes);
            const bool all_seen = last_key <= first + query && first_key >= visible.all[panel];
            for (int half = 0; half < 2; ++half) {
              const int64_t lane = query + half * Vec::kLanes;
              const Vec log_sum = Vec::load(log_sums + at + lane);
#pragma GCC unroll 12
              for (int i = 0; i < kTileRows; ++i) {
                Vec& p = tile.sums[i][half];
                p = exp2(p - log_sum);
                if (!all_seen) p = visible.seen(lane, first_key + i, p, Vec::zero());
              }
            }
            Factors::store_rows(weights + query, tile);
            tile.store(probabilities, kTileCols);
            multiply_dims<Factors>(tile, values + first_key * kTileCols, slice,
                                   d_outs + (at + query) * dims, dims);
            for (int half = 0; half < 2; ++half) {
              const Vec delta = Vec::load(deltas + at + query + half * Vec::kLanes);
#pragma GCC unroll 12
              for (int i = 0; i < kTileRows; ++i) {
                Vec& d = tile.sums[i][half];
                const int64_t place = i * kTileCols + half * Vec::kLanes;
                d = (d - delta) * Vec::load(probabilities + place);
                if (rules.cap > 0) d = d * Vec::load(slopes + place);
              }
            }
            Factors::store_rows(d_scores + query, tile);
            Factors::store_pairs(pairs, tile);
          }
          if (from >= to) continue;
          for (int64_t d = 0; d < dims; d += kTileCols) {
            Tile tile;
            tile.clear();
            Factors::multiply_rows(
                tile, weights + from,
                d_out_rights + h * padded * dims + slice_offset(d, first + from, padded),
                to - from);
            tile.add_to(d_values + key * dims + d, dims);
            tile.clear();
            Factors::multiply_rows(
                tile, d_scores + from,
                query_rights + h * padded * dims + slice_offset(d, first + from, padded),
                to - from);
            tile.add_to(d_keys + key * dims + d, dims);
          }
        }
        for (int64_t row = 0; row < round_up(count, kTileRows); row += kTileRows) {
          const int64_t seen = std::min(first + row + kTileRows - block, keys_here);
          for (int64_t d = 0; d < dims; d += kTileCols) {
            Tile tile;
            tile.clear();
            Factors::multiply_pairs(tile, Factors::pair_at(d_score_pairs, 0, row),
                                    key_rights + slice_offset(d, block, padded_keys),
                                    round_up(seen, kTileRows));
            tile.add_to(d_queries + (at + row) * dims + d, dims);
          }
        }
      }
    }
    const Vec scale = Vec::set1(task.scale);
    for (int64_t i = 0; i < keys_here; ++i) {
      float* d_k = gradients.d_k.at(block + i, task.kv_head);
      float* d_v = gradients.d_v.at(block + i, task.kv_head);
      for_lanes(head_dim, [&](int64_t d, int64_t n) {
        (Vec::load_n(d_keys + i * dims + d, n) * scale).store_n(d_k + d, n);
        Vec::load_n(d_values + i * dims + d, n).store_n(d_v + d, n);
      });
    }
  }
  for (int64_t h = 0; h < group; ++h) {
    for (int64_t t = 0; t < seq; ++t) {
      const float* from = d_queries + (h * padded + t) * dims;
      float* to = gradients.d_q.at(t, first_head + h);
      for_lanes(head_dim, [&](int64_t d, int64_t n) {
        (Vec::load_n(from + d, n) * Vec::set1(task.scale)).store_n(to + d, n);
      });
    }
  }
}

template <class Factors>
constexpr AttentionKernels attention_table() noexcept {
  return {
      .forward = attention_training<Factors>,
      .backward = attention_training_backward<Factors>,
      .forward_scratch_floats = attention_training_scratch_floats,
      .backward_scratch_floats = attention_training_backward_scratch_floats,
  };
}
