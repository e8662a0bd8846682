// Products of pairs: matmul.inl's and matmul_blocks.inl's, whose columns are pairs here.

void few_rows_of_pairs(const MatmulPart& part, ConstRows x, int64_t begin, int64_t end) noexcept {
  few_rows(part, x, dense<Bf16Pair>(*part.weight), begin, end);
}

void many_rows_of_pairs(const MatmulPart& part, const float* packed, int64_t rows, int64_t cols,
                        int64_t begin, int64_t end, float* scratch) noexcept {
  dense_rows<Bf16Pair>(part, packed, rows, cols, begin, end, scratch);
}

void round_row(float* out, const float* x, int64_t cols) noexcept {
  int64_t k = 0;
  for (; k + 2 * Vec::kLanes <= cols; k += 2 * Vec::kLanes) {
    const Vec low = Vec::load(x + k), high = Vec::load(x + k + Vec::kLanes);
    _mm512_storeu_si512(out + k / 2, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v)));
  }
  auto* rest = reinterpret_cast<char*>(out);
  for (; k < cols; ++k) {
    const uint16_t bits = to_bf16(x[k]);
    std::memcpy(rest + 2 * k, &bits, 2);
  }
}
