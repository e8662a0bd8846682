// Products of many rows. Both factors are repacked so that a tile of the output reads two streams:
//   x        [stretch][tile][depth / W][R][W], a stretch of columns at a time, tiles of R rows:
//            once for all weights, by all threads;
//   weight   panels of 4 rows, [depth / W][4][W]: floats whatever the stored type, a stretch of
//            columns at a time, for all rows of x.
// The lanes of a sum are added behind each stretch, as in few_rows: so the bits are the same. Zeros
// behind the last column add nothing to a lane.
//
// Who stays where: kGroup tiles of x in the first cache while the panels of a stretch pass by;
// those in the second while the tiles pass by, with the sums; all of x in the third. The sizes were
// chosen by measuring (docs/performance.md).
constexpr int64_t kPanel = 4;                          // weight rows in a panel
constexpr int64_t kGroup = Vec::kLanes == 16 ? 1 : 3;  // tiles of x that a panel meets at once
constexpr int64_t kBlockCols = 128;                    // weight rows a call takes
static_assert(kBlockCols % kPanel == 0 && kDepth % Vec::kLanes == 0);

inline int64_t whole_lanes(int64_t cols) noexcept {
  return (cols + Vec::kLanes - 1) / Vec::kLanes * Vec::kLanes;
}

int64_t matmul_packed_floats(int64_t rows, int64_t cols) noexcept {
  return rows * whole_lanes(cols);
}

int64_t matmul_scratch_floats(int64_t rows) noexcept {
  return kDepth + kBlockCols * kDepth + rows * kBlockCols;
}

// The tile of x that begins at `row`, a multiple of kTileRows.
void matmul_pack(float* packed, ConstRows x, int64_t row) noexcept {
  const int64_t count = std::min<int64_t>(Vec::kTileRows, x.rows - row);
  for (int64_t k = 0; k < x.cols; k += kDepth) {
    const int64_t columns = std::min(kDepth, x.cols - k);
    float* to = packed + k * x.rows + row * whole_lanes(columns);
    for (int64_t r = 0; r < count; ++r) {
      const float* from = x.row(row + r) + k;
      for_lanes(columns, [&](int64_t i, int64_t n) {
        const Vec v = n == Vec::kLanes ? Vec::load(from + i) : Vec::load_n(from + i, n);
        v.store(to + i * count + r * Vec::kLanes);
      });
    }
  }
}

// acc[r][c] += a vector of columns of x's packed rows times column(c), c < C.
template <class T, int R, int C, class Column>
[[gnu::always_inline]] inline void add_columns(Vec (&acc)[R][kPanel], const float* x,
                                               const Column& column) noexcept {
  constexpr const T* kType = nullptr;
  Vec row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) row[r] = Vec::load(x + r * Vec::kLanes);
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) {
    const Vec w = column(c);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r][c] = multiply_add(kType, row[r], w, acc[r][c]);
  }
}

// sums[r][c] (+)= x[r] · w[c] over `depth` columns, whole vectors. A function of its own, which has
// all registers for itself and is the same for all formats of weights.
template <class T, int R>
[[gnu::noinline]] void packed_tile(float* sums, bool add, const float* x, const float* w,
                                   int64_t depth) noexcept {
  Vec acc[R][kPanel] = {};
  const auto step = [&] {
    add_columns<T, R, kPanel>(acc, x, [&](int c) { return Vec::load(w + c * Vec::kLanes); });
    x += R * Vec::kLanes;
    w += kPanel * Vec::kLanes;
  };
#pragma GCC unroll 2
  for (; depth > 0; depth -= Vec::kLanes) step();
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) Vec::sum4(acc[r], sums + r * kPanel, add);
}

// Weight rows [begin, begin + count), columns [first, first + depth), as a panel.
template <class Decode>
inline void pack_panel(float* panel, const Decode& decode, int64_t begin, int64_t count,
                       int64_t first, int64_t depth, float* row) noexcept {
  for (int64_t c = 0; c < kPanel; ++c) {
    float* to = panel + c * Vec::kLanes;
    if (c >= count) {  // sums that nobody reads
      for (int64_t k = 0; k < depth; k += Vec::kLanes) Vec::zero().store(to + k * kPanel);
      continue;
    }
    decode(row, begin + c, first, depth, [&](int64_t k, Vec v) { v.store(to + k * kPanel); });
  }
}

// All rows of x with the weight rows [begin, end) of a part. decode(scratch, row, first, count,
// emit) calls emit(k, vector) over the floats of a weight row, zeros behind the last;
// decode.prefetch(row, first, count) asks for what it will read.
template <class Decode>
void matmul_block(const MatmulPart& part, const float* packed, int64_t rows, int64_t cols,
                  int64_t begin, int64_t end, float* scratch, const Decode& decode) noexcept {
  const int64_t width = end - begin;
  const int64_t panels = (width + kPanel - 1) / kPanel;
  float* row_scratch = scratch;
  float* stretch = row_scratch + kDepth;               // [panels][depth * kPanel]
  float* const saved = stretch + kBlockCols * kDepth;  // sums in the order of use
  for (int64_t k = 0; k < cols; k += kDepth) {
    const int64_t columns = std::min(kDepth, cols - k), depth = whole_lanes(columns);
    const int64_t ahead = std::min(kDepth, cols - k - columns);
    const bool last = k + columns == cols;
    for (int64_t p = 0; p < panels; ++p) {
      pack_panel(stretch + p * kPanel * depth, decode, begin + p * kPanel,
                 std::min(kPanel, width - p * kPanel), k, columns, row_scratch);
    }
    const auto multiply = [&](int64_t row, int64_t p) {
      with_constant<Vec::kTileRows>(std::min<int64_t>(Vec::kTileRows, rows - row), [&](auto n) {
        constexpr int R = n;
        float* sums = saved + (row * panels + p * R) * kPanel;
        packed_tile<typename Decode::Product, R>(sums, k > 0, packed + k * rows + row * depth,
                                                 stretch + p * kPanel * depth, depth);
        if (!last) return;
        const int64_t valid = std::min(kPanel, width - p * kPanel);
        for (int r = 0; r < R; ++r) {
          write_sums(part, row + r, begin + p * kPanel, valid, sums + r * kPanel);
        }
      });
    };
    int64_t asked = 0;  // weight rows of the next stretch
    for (int64_t row = 0; row < rows; row += kGroup * Vec::kTileRows) {
      const int64_t group_end = std::min(row + kGroup * Vec::kTileRows, rows);
      if (ahead > 0) {
        for (; asked < group_end * width / rows; ++asked) {
          decode.prefetch(begin + asked, k + columns, ahead);
        }
      }
      // The tiles of x that come next, a share with each panel: they come from far.
      const float* next = packed + k * rows + group_end * depth;
      constexpr int64_t kLine = 64 / sizeof(float);
      const int64_t next_lines =
          std::min(kGroup * Vec::kTileRows, rows - group_end) * depth / kLine;
      for (int64_t p = 0; p < panels; ++p) {
        for (int64_t i = p * next_lines / panels; i < (p + 1) * next_lines / panels; ++i) {
          __builtin_prefetch(next + kLine * i, 0, 2);
        }
        for (int64_t r = row; r < group_end; r += Vec::kTileRows) multiply(r, p);
      }
    }
  }
}

template <class T>
struct DenseDecoder {
  using Product = std::conditional_t<sizeof(T) == sizeof(float), T, float>;  // halves are widened
  const T* data;
  int64_t cols;

  template <class Emit>
  [[gnu::always_inline]] inline void operator()(float*, int64_t row, int64_t first, int64_t count,
                                                const Emit& emit) const noexcept {
    const T* from = data + row * cols + first;
    for_lanes(count, [&](int64_t k, int64_t n) {
      emit(k, n == Vec::kLanes ? load_as(from + k) : load_as(from + k, n));
    });
  }
  void prefetch(int64_t row, int64_t first, int64_t count) const noexcept {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    const T* line = data + row * cols + first;
    for (int64_t k = 0; k < count; k += kLine) __builtin_prefetch(line + k, 0, 2);
  }
};

struct GptqDecoder {
  using Product = float;
  const GptqMatrix& matrix;
  int64_t first_row;

  template <class Emit>
  void operator()(float* scratch, int64_t row, int64_t first, int64_t count,
                  const Emit& emit) const noexcept {
    decode_gptq(scratch, matrix, first_row + row, first, count);
    for_lanes(count, [&](int64_t k, int64_t n) { emit(k, Vec::load_n(scratch + k, n)); });
  }
  void prefetch(int64_t, int64_t, int64_t) const noexcept {}  // decoding is slower than memory
};

constexpr ProductKernels product_table(decltype(ProductKernels::few_rows) few_rows,
                                       decltype(ProductKernels::many_rows) many_rows) noexcept {
  return {
      .few_rows = few_rows,
      .most_rows = Vec::kTileRows,
      .pack = matmul_pack,
      .packed_floats = matmul_packed_floats,
      .many_rows = many_rows,
      .block_cols = kBlockCols,
      .scratch_floats = matmul_scratch_floats,
  };
}
