// Products in double, for what is solved rather than computed.

using Doubles [[gnu::vector_size(Vec::kLanes * sizeof(float)), gnu::aligned(8), gnu::may_alias]] =
    double;
constexpr int64_t kDoubles = Vec::kLanes / 2;

// kRows rows of the output and two vectors of columns, whose sums stay in registers; of the
// columns, `cols` are stored.
template <int kRows>
void subtract_tile(double* out, int64_t out_step, const double* a, const double* b, int64_t depth,
                   int64_t cols) noexcept {
  Doubles sums[kRows][2] = {};
  for (int64_t k = 0; k < depth; ++k) {
    // Not auto: deduced types lose the alignment that Doubles states.
    const Doubles* right = reinterpret_cast<const Doubles*>(b + k * kPanelDoubles);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 2; ++v) sums[r][v] += a[r * kDepthDoubles + k] * right[v];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    double* line = out + r * out_step;
    if (cols >= 2 * kDoubles) {
      for (int v = 0; v < 2; ++v) *reinterpret_cast<Doubles*>(line + v * kDoubles) -= sums[r][v];
    } else {
      const auto* sum = reinterpret_cast<const double*>(sums[r]);
      for (int64_t c = 0; c < cols; ++c) line[c] -= sum[c];
    }
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
