// Products of several rows: too many for the speed of memory to be all that counts, too few to
// repack weights for. x is packed by matmul_pack. A panel of weight rows, one of each quarter as in
// few_rows, a stretch of columns wide, is read in its stored form and meets all tiles of x while it
// stays in the first cache; the tiles ask for one that comes later meanwhile, so that memory and
// arithmetic work at the same time.
//
// At most so many rows, by measuring: halves are widened again for each tile.
constexpr int64_t kSeveralRows = Vec::kLanes == 16 ? 128 : 32;

// Memory answers so late that the next stretch alone would not be there in time.
constexpr int64_t kStretchesAhead = 2;

// What a tile asks for: the rows first, first + step, ... of a panel that begins at `panel`.
template <class T>
struct Ahead {
  const T* panel;  // or null
  int64_t first, step;
};

// sums[r][c] (+)= x[r] · w[c] over `columns` columns, c < C, as packed_tile has it.
template <class T, int R, int C>
[[gnu::noinline]] void several_tile(float* sums, bool add, const float* x, const T* w,
                                    int64_t stride, int64_t columns, Ahead<T> ahead) noexcept {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  constexpr int64_t kTurn = std::max<int64_t>(kLine, Vec::kLanes);
  Vec acc[R][kPanel] = {};
  const auto step = [&](const auto& load_w) {
    add_columns<T, R, C>(acc, x, [&](int c) { return load_w(w + c * stride); });
    x += R * Vec::kLanes;
    w += Vec::kLanes;
  };
  for (; columns >= kTurn; columns -= kTurn) {
    if (ahead.panel != nullptr) {
      for (int64_t c = ahead.first; c < kPanel; c += ahead.step) {
#pragma GCC unroll 4
        for (int64_t line = 0; line < kTurn; line += kLine) {
          __builtin_prefetch(ahead.panel + c * stride + line, 0, 2);
        }
      }
      ahead.panel += kTurn;
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < kTurn; i += Vec::kLanes) {
      step([](const T* p) { return load_as(p); });
    }
  }
  for (; columns > 0; columns -= Vec::kLanes) {
    step([&](const T* p) { return load_as(p, std::min<int64_t>(Vec::kLanes, columns)); });
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) Vec::sum4(acc[r], sums + r * kPanel, add);
}

// At most kSeveralRows rows of x with the weight rows [begin, end) of a part.
template <class T>
void several_rows(const MatmulPart& part, const float* packed, int64_t rows, int64_t cols,
                  int64_t begin, int64_t end, const T* weight) noexcept {
  float sums[kSeveralRows * kPanel];
  const int64_t tiles = (rows + Vec::kTileRows - 1) / Vec::kTileRows;
  // Columns from k on of `width` weight rows, `stride` apart. `next`: the panel's stretch to ask for.
  const auto multiply = [&](int64_t first, auto width, int64_t stride, int64_t k, const T* next) {
    const int64_t columns = std::min(kDepth, cols - k), depth = whole_lanes(columns);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = tile * Vec::kTileRows;
      with_constant<Vec::kTileRows>(std::min<int64_t>(Vec::kTileRows, rows - row), [&](auto n) {
        several_tile<T, n, width>(sums + row * kPanel, k > 0, packed + k * rows + row * depth,
                                  weight + first * cols + k, stride, columns, {next, tile, tiles});
      });
    }
  };
  const int64_t quarter = (end - begin) / kPanel, stride = quarter * cols;
  for (int64_t i = 0; i < quarter; ++i) {
    for (int64_t k = 0; k < cols; k += kDepth) {
      const int64_t later = (begin + i) * cols + k + kStretchesAhead * kDepth;
      const T* next = later + kDepth <= (begin + quarter) * cols ? weight + later : nullptr;
      multiply(begin + i, std::integral_constant<int, kPanel>{}, stride, k, next);
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < kPanel; ++c) {
        write_sums(part, r, begin + c * quarter + i, 1, sums + r * kPanel + c);
      }
    }
  }
  for (int64_t col = begin + kPanel * quarter; col < end; ++col) {
    for (int64_t k = 0; k < cols; k += kDepth) {
      multiply(col, std::integral_constant<int, 1>{}, 0, k, nullptr);
    }
    for (int64_t r = 0; r < rows; ++r) write_sums(part, r, col, 1, sums + r * kPanel);
  }
}

// Any number of rows of weights stored as T: what ProductKernels::many_rows does for them.
template <class T>
void dense_rows(const MatmulPart& part, const float* packed, int64_t rows, int64_t cols,
                int64_t begin, int64_t end, float* scratch) noexcept {
  const T* const weight = dense<T>(*part.weight);
  if (rows <= kSeveralRows) {
    several_rows(part, packed, rows, cols, begin, end, weight);
  } else {
    matmul_block(part, packed, rows, cols, begin, end, scratch, DenseDecoder<T>{weight, cols});
  }
}
