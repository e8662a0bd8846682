// Dense causal attention and its gradients, block by block (FlashAttention-2, Dao 2023). All factors
// are copied into the layouts that Tile reads:
//   slices    x as [head_dim / kTileCols][rows][kTileCols]: right factor [rows, head_dim] of a
//             product, or its left factor with the head's dims as depth, a slice at a time;
//   columns   xᵀ as [rows / kTileCols][head_dim][kTileCols]: right factor [head_dim, rows].
// Head dims and rows are padded with zeros to whole slices and blocks.

constexpr int64_t kQueryBlock = 48;  // both are multiples of kTileRows and kTileCols ...
constexpr int64_t kKeyBlock = 96;    // ... so that no tile has a ragged edge
static_assert(kQueryBlock % kTileRows == 0 && kKeyBlock % kTileRows == 0 &&
              kKeyBlock % kTileCols == 0);

inline int64_t round_up(int64_t x, int64_t to) noexcept { return (x + to - 1) / to * to; }

// Rows [first, first + rows) of a head, times `factor`, as slices; `padded` rows lie in each slice.
inline void pack_slices(float* out, ConstHeads x, int64_t head, int64_t first, int64_t rows,
                        int64_t padded, float factor) noexcept {
  for (int64_t d = 0; d < x.head_dim; d += kTileCols, out += padded * kTileCols) {
    const int64_t width = std::min<int64_t>(kTileCols, x.head_dim - d);
    for (int64_t i = 0; i < padded; ++i) {
      float* to = out + i * kTileCols;
      const float* from = i < rows ? x.at(first + i, head) + d : nullptr;
      for (int64_t j = 0; j < kTileCols; ++j) {
        to[j] = from != nullptr && j < width ? from[j] * factor : 0;
      }
    }
  }
}

// `padded` rows (a multiple of kTileCols) of a head as columns.
inline void pack_columns(float* out, ConstHeads x, int64_t head, int64_t rows,
                         int64_t padded) noexcept {
  const int64_t dims = round_up(x.head_dim, kTileCols);
  for (int64_t i = 0; i < padded; ++i) {
    float* to = out + i / kTileCols * dims * kTileCols + i % kTileCols;
    const float* from = i < rows ? x.at(i, head) : nullptr;
    for (int64_t d = 0; d < dims; ++d) {
      to[d * kTileCols] = from != nullptr && d < x.head_dim ? from[d] : 0;
    }
  }
}

// out[rows, kKeyBlock] = x · columns for whole tiles: x in slices, `x_slice` floats apart.
inline void multiply_columns(float* out, const float* x, int64_t x_slice, int64_t rows,
                             const float* columns, int64_t dims) noexcept {
  for (int64_t j = 0; j < kKeyBlock; j += kTileCols) {
    for (int64_t i = 0; i < rows; i += kTileRows) {
      Tile tile;
      tile.clear();
      for (int64_t d = 0; d < dims; d += kTileCols) {
        tile.multiply<kTileCols, 1>(x + d / kTileCols * x_slice + i * kTileCols,
                                    columns + j * dims + d * kTileCols, kTileCols);
      }
      tile.store(out + i * kKeyBlock + j, kKeyBlock);
    }
  }
}

// out[rows, dims] += weights · x: `weights` is [rows, depth] with the steps given, x in slices.
template <int64_t kRowStep, int64_t kDepthStep>
inline void add_product(float* out, const float* weights, int64_t rows, int64_t depth,
                        const float* x, int64_t x_slice, int64_t dims) noexcept {
  for (int64_t d = 0; d < dims; d += kTileCols) {
    for (int64_t i = 0; i < rows; i += kTileRows) {
      Tile tile;
      tile.clear();
      tile.multiply<kRowStep, kDepthStep>(weights + i * kRowStep, x + d / kTileCols * x_slice,
                                          depth);
      tile.add_to(out + i * dims + d, dims);
    }
  }
}

inline int64_t first_visible(const AttentionTask& task, int64_t position) noexcept {
  int64_t first = task.starts != nullptr ? task.starts[position] : 0;
  if (task.window > 0) first = std::max(first, position - task.window + 1);
  return first;
}

// Sets what lies outside [begin, end) of a row of kKeyBlock to `value`.
inline void fill_outside(float* row, int64_t begin, int64_t end, float value) noexcept {
  std::fill(row, row + begin, value);
  std::fill(row + end, row + kKeyBlock, value);
}

int64_t attention_training_scratch_floats(int64_t seq, int64_t head_dim) noexcept {
  const int64_t dims = round_up(head_dim, kTileCols), keys = round_up(seq, kKeyBlock);
  return 2 * keys * dims + 2 * kQueryBlock * dims + kQueryBlock * kKeyBlock;
}

void attention_training(const AttentionTask& task, MutHeads out, MutRows log_sum,
                        float* scratch) noexcept {
  const int64_t seq = task.seq, head_dim = task.q.head_dim;
  const int64_t dims = round_up(head_dim, kTileCols), padded = round_up(seq, kKeyBlock);
  float* keys = scratch;                          // columns
  float* values = keys + padded * dims;           // slices
  float* queries = values + padded * dims;        // slices of one block, times scale
  float* sums = queries + kQueryBlock * dims;     // [kQueryBlock, dims]
  float* scores = sums + kQueryBlock * dims;      // [kQueryBlock, kKeyBlock]
  pack_columns(keys, task.k, task.kv_head, seq, padded);
  pack_slices(values, task.v, task.kv_head, 0, seq, padded, 1);

  const int64_t group = task.q.heads / task.k.heads;
  for (int64_t head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head) {
    for (int64_t first = 0; first < seq; first += kQueryBlock) {
      const int64_t rows = std::min(kQueryBlock, seq - first);
      pack_slices(queries, task.q, head, first, rows, kQueryBlock, task.scale);
      std::fill_n(sums, kQueryBlock * dims, 0.0f);
      float largest[kQueryBlock], denominator[kQueryBlock];
      std::fill_n(largest, kQueryBlock, -std::numeric_limits<float>::infinity());
      std::fill_n(denominator, kQueryBlock, 0.0f);

      for (int64_t block = first_visible(task, first) / kKeyBlock * kKeyBlock;
           block < first + rows; block += kKeyBlock) {
        multiply_columns(scores, queries, kQueryBlock * kTileCols, kQueryBlock, keys + block * dims,
                         dims);
        for (int64_t r = 0; r < kQueryBlock; ++r) {
          float* row = scores + r * kKeyBlock;
          const int64_t position = first + r;
          const int64_t begin =
              r < rows ? std::max<int64_t>(first_visible(task, position) - block, 0) : kKeyBlock;
          const int64_t end = std::min(position + 1 - block, kKeyBlock);
          if (begin >= end) {
            std::fill_n(row, kKeyBlock, 0.0f);
            continue;
          }
          fill_outside(row, begin, end, -std::numeric_limits<float>::infinity());
          Vec top = Vec::load(row);
          for (int64_t j = Vec::kLanes; j < kKeyBlock; j += Vec::kLanes) {
            top = Vec::max(top, Vec::load(row + j));
          }
          const float reference = std::max(largest[r], top.largest());
          Vec total = Vec::zero();
          for (int64_t j = 0; j < kKeyBlock; j += Vec::kLanes) {
            const Vec weight = exp(Vec::load(row + j) - Vec::set1(reference));
            weight.store(row + j);
            total = total + weight;
          }
          // What the clamped exponential left of the invisible ones is below 1e-37.
          fill_outside(row, begin, end, 0);
          if (reference > largest[r]) {
            const float shrink = std::exp(largest[r] - reference);
            denominator[r] *= shrink;
            float* sum = sums + r * dims;
            for (int64_t d = 0; d < dims; d += Vec::kLanes) {
              (Vec::load(sum + d) * Vec::set1(shrink)).store(sum + d);
            }
            largest[r] = reference;
          }
          denominator[r] += total.sum();
        }
        add_product<kKeyBlock, 1>(sums, scores, kQueryBlock, kKeyBlock, values + block * kTileCols,
                                  padded * kTileCols, dims);
      }
      for (int64_t r = 0; r < rows; ++r) {
        float* to = out.at(first + r, head);
        const Vec inverse = Vec::set1(1.0f / denominator[r]);
        for_lanes(head_dim, [&](int64_t d, int64_t n) {
          (Vec::load_n(sums + r * dims + d, n) * inverse).store_n(to + d, n);
        });
        log_sum.row(first + r)[head] = largest[r] + std::log(denominator[r]);
      }
    }
  }
}

int64_t attention_training_backward_scratch_floats(int64_t seq, int64_t head_dim,
                                                   int64_t group) noexcept {
  const int64_t dims = round_up(head_dim, kTileCols);
  const int64_t keys = round_up(seq, kKeyBlock), queries = round_up(seq, kQueryBlock);
  return 3 * keys * dims + group * queries * (3 * dims + 1) + 2 * kKeyBlock * dims +
         2 * kQueryBlock * kKeyBlock;
}

// With P = softmax(S), S = scale · q · kᵀ, D = rowsum(d_out ∘ out):
//   d_v = Pᵀ · d_out, dS = P ∘ (d_out · vᵀ - D), d_q = scale · dS · k, d_k = dSᵀ · (scale · q).
// Blocks of keys outside, blocks of queries inside, every sum in this order.
void attention_training_backward(const AttentionTask& task, const AttentionGradients& gradients,
                                 float* scratch) noexcept {
  const int64_t seq = task.seq, head_dim = task.q.head_dim;
  const int64_t dims = round_up(head_dim, kTileCols);
  const int64_t padded_keys = round_up(seq, kKeyBlock), padded = round_up(seq, kQueryBlock);
  const int64_t group = task.q.heads / task.k.heads, first_head = task.kv_head * group;
  float* key_columns = scratch;
  float* value_columns = key_columns + padded_keys * dims;
  float* keys = value_columns + padded_keys * dims;      // slices
  float* queries = keys + padded_keys * dims;            // [group] slices, times scale
  float* d_outs = queries + group * padded * dims;       // [group] slices
  float* d_queries = d_outs + group * padded * dims;     // [group][padded, dims]
  float* deltas = d_queries + group * padded * dims;     // [group][padded]
  float* d_keys = deltas + group * padded;               // [kKeyBlock, dims]
  float* d_values = d_keys + kKeyBlock * dims;           // [kKeyBlock, dims]
  float* weights = d_values + kKeyBlock * dims;          // [kQueryBlock, kKeyBlock]
  float* d_scores = weights + kQueryBlock * kKeyBlock;   // [kQueryBlock, kKeyBlock]

  pack_columns(key_columns, task.k, task.kv_head, seq, padded_keys);
  pack_columns(value_columns, task.v, task.kv_head, seq, padded_keys);
  pack_slices(keys, task.k, task.kv_head, 0, seq, padded_keys, 1);
  std::fill_n(d_queries, group * padded * dims, 0.0f);
  for (int64_t h = 0; h < group; ++h) {
    pack_slices(queries + h * padded * dims, task.q, first_head + h, 0, seq, padded, task.scale);
    pack_slices(d_outs + h * padded * dims, gradients.d_out, first_head + h, 0, seq, padded, 1);
    for (int64_t t = 0; t < seq; ++t) {
      const float* d_out = gradients.d_out.at(t, first_head + h);
      const float* out = gradients.out.at(t, first_head + h);
      Vec sum = Vec::zero();
      for_lanes(head_dim, [&](int64_t d, int64_t n) {
        sum = Vec::fma(Vec::load_n(d_out + d, n), Vec::load_n(out + d, n), sum);
      });
      deltas[h * padded + t] = sum.sum() / task.out_scale;
    }
  }

  for (int64_t block = 0; block < seq; block += kKeyBlock) {
    std::fill_n(d_keys, 2 * kKeyBlock * dims, 0.0f);
    for (int64_t h = 0; h < group; ++h) {
      const float* head_queries = queries + h * padded * dims;
      const float* head_d_outs = d_outs + h * padded * dims;
      for (int64_t first = block; first < seq; first += kQueryBlock) {
        const int64_t rows = std::min(kQueryBlock, seq - first);
        // First positions never fall: once a block of queries is past this one, all later are.
        if (first_visible(task, first) >= block + kKeyBlock) break;
        const float* block_queries = head_queries + first * kTileCols;
        const float* block_d_outs = head_d_outs + first * kTileCols;
        multiply_columns(weights, block_queries, padded * kTileCols, kQueryBlock,
                         key_columns + block * dims, dims);
        multiply_columns(d_scores, block_d_outs, padded * kTileCols, kQueryBlock,
                         value_columns + block * dims, dims);
        for (int64_t r = 0; r < kQueryBlock; ++r) {
          float* weight = weights + r * kKeyBlock;
          float* d_score = d_scores + r * kKeyBlock;
          const int64_t position = first + r;
          const int64_t begin =
              r < rows ? std::max<int64_t>(first_visible(task, position) - block, 0) : kKeyBlock;
          const int64_t end = std::min(position + 1 - block, kKeyBlock);
          if (begin >= end) {
            std::fill_n(weight, kKeyBlock, 0.0f);
            std::fill_n(d_score, kKeyBlock, 0.0f);
            continue;
          }
          const Vec log_sum = Vec::set1(gradients.log_sum.row(position)[first_head + h]);
          const Vec delta = Vec::set1(deltas[h * padded + position]);
          for (int64_t j = 0; j < kKeyBlock; j += Vec::kLanes) {
            const Vec p = exp(Vec::load(weight + j) - log_sum);
            p.store(weight + j);
            (p * (Vec::load(d_score + j) - delta)).store(d_score + j);
          }
          fill_outside(weight, begin, end, 0);
          fill_outside(d_score, begin, end, 0);
        }
        add_product<1, kKeyBlock>(d_values, weights, kKeyBlock, kQueryBlock, block_d_outs,
                                  padded * kTileCols, dims);
        add_product<1, kKeyBlock>(d_keys, d_scores, kKeyBlock, kQueryBlock, block_queries,
                                  padded * kTileCols, dims);
        add_product<kKeyBlock, 1>(d_queries + (h * padded + first) * dims, d_scores, kQueryBlock,
                                  kKeyBlock, keys + block * kTileCols, padded_keys * kTileCols,
                                  dims);
      }
    }
    for (int64_t i = 0; i < std::min(kKeyBlock, seq - block); ++i) {
      std::copy_n(d_keys + i * dims, head_dim, gradients.d_k.at(block + i, task.kv_head));
      std::copy_n(d_values + i * dims, head_dim, gradients.d_v.at(block + i, task.kv_head));
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
