// Products in double, for what is solved rather than computed.

using Doubles [[gnu::vector_size(Vec::kLanes * sizeof(float)), gnu::aligned(8), gnu::may_alias]] =
    double;
constexpr int64_t kDoubles = Vec::kLanes / 2;

// kRows rows of the output and two vectors of columns, whose sums stay in registers; of the
// columns, `cols` are stored.
template <int kRows>
void subtract_tile(double* out, int64_t out_step, const double* a, const double* b, int64_t depth,
                   int64_t cols) noexcept {
  for (int r = 0; r < kRows; ++r) {
    __builtin_prefetch(out + r * out_step, 1);
    __builtin_prefetch(out + r * out_step + kDoubles, 1);
  }
  // Every loop over the sums is unrolled: only then do they stay in registers.
  Doubles sums[kRows][2];
#pragma GCC unroll 24
  for (int i = 0; i < 2 * kRows; ++i) sums[i / 2][i % 2] = Doubles{};
  for (int64_t k = 0; k < depth; ++k) {
    // Not auto: deduced types lose the alignment that Doubles states.
    const Doubles* right = reinterpret_cast<const Doubles*>(b + k * kPanelDoubles);
    const Doubles first = right[0], second = right[1];
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      sums[r][0] += a[r * kDepthDoubles + k] * first;
      sums[r][1] += a[r * kDepthDoubles + k] * second;
    }
  }
  if (cols >= 2 * kDoubles) {
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      Doubles* line = reinterpret_cast<Doubles*>(out + r * out_step);
      line[0] -= sums[r][0];
      line[1] -= sums[r][1];
    }
    return;
  }
  double edge[kRows][2 * kDoubles];
  std::memcpy(edge, sums, sizeof(edge));
  for (int r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < cols; ++c) out[r * out_step + c] -= edge[r][c];
  }
}

void subtract_product(double* out, int64_t out_step, const double* a, const double* b, int64_t rows,
                      int64_t depth, int64_t cols) noexcept {
  constexpr int kRows = Vec::kLanes == 16 ? 12 : 6;
  for (int64_t c = 0; c < cols; c += 2 * kDoubles) {
    const double* panel = b + c / kPanelDoubles * kPanelDoubles * depth + c % kPanelDoubles;
    int64_t r = 0;
    for (; r + kRows <= rows; r += kRows) {
      subtract_tile<kRows>(out + r * out_step + c, out_step, a + r * kDepthDoubles, panel, depth,
                           cols - c);
    }
    for (; r < rows; ++r) {
      subtract_tile<1>(out + r * out_step + c, out_step, a + r * kDepthDoubles, panel, depth,
                       cols - c);
    }
  }
}
