// Products by the format that weights are stored in.

// GPTQ matrices are for matmul_many_rows, packed ones for QuantKernels.
void matmul_few_rows(const MatmulPart& part, ConstRows x, int64_t begin, int64_t end) noexcept {
  switch (part.weight->format) {
    case WeightFormat::F32:
      return few_rows(part, x, dense<float>(*part.weight), begin, end);
    case WeightFormat::BF16:
      return few_rows(part, x, dense<Bf16>(*part.weight), begin, end);
    case WeightFormat::F16:
      return few_rows(part, x, dense<F16>(*part.weight), begin, end);
    case WeightFormat::Gptq:
    case WeightFormat::Packed:
      return;
  }
}

void decode_row(float* out, const Weight& weight, int64_t row) noexcept {
  switch (weight.format) {
    case WeightFormat::F32:
      return decode_stretch(out, dense<float>(weight) + row * weight.cols, weight.cols);
    case WeightFormat::BF16:
      return decode_stretch(out, dense<Bf16>(weight) + row * weight.cols, weight.cols);
    case WeightFormat::F16:
      return decode_stretch(out, dense<F16>(weight) + row * weight.cols, weight.cols);
    case WeightFormat::Gptq:
      return decode_gptq(out, *weight.gptq, weight.first_row + row, 0, weight.cols);
    case WeightFormat::Packed:
      return;  // decode_packed
  }
}

void matmul_many_rows(const MatmulPart& part, const float* packed, int64_t rows, int64_t cols,
                      int64_t begin, int64_t end, float* scratch) noexcept {
  switch (part.weight->format) {
    case WeightFormat::F32:
      return dense_rows<float>(part, packed, rows, cols, begin, end, scratch);
    case WeightFormat::BF16:
      return dense_rows<Bf16>(part, packed, rows, cols, begin, end, scratch);
    case WeightFormat::F16:
      return dense_rows<F16>(part, packed, rows, cols, begin, end, scratch);
    case WeightFormat::Gptq:
      return matmul_block(part, packed, rows, cols, begin, end, scratch,
                          GptqDecoder{*part.weight->gptq, part.weight->first_row});
    case WeightFormat::Packed:
      return;
  }
}
