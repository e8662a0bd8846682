// Rounding of activations, plain C++ that compilers make vectors of. See quant_kernels.h.

constexpr int kLanesOfBlock = 8;

// The block's scale for levels up to `most`, and its inverse. NaN where a value is not finite.
// Of `pairs` two neighbours of one sign together stay within `most`.
inline float block_scale(const float* x, float most, bool pairs, float& inverse) noexcept {
  float largest[kLanesOfBlock] = {}, finite[kLanesOfBlock] = {};
  for (int64_t k = 0; k < kBlockInputs; k += kLanesOfBlock) {
    for (int l = 0; l < kLanesOfBlock; ++l) {
      const float size = x[k + l] < 0 ? -x[k + l] : x[k + l];
      largest[l] = largest[l] < size ? size : largest[l];
      finite[l] += x[k + l] * 0.0f;
    }
  }
  for (int64_t k = 0; pairs && k < kBlockInputs; k += kLanesOfBlock) {
    for (int l = 0; l < kLanesOfBlock; ++l) {
      const float both = x[k + l] + x[k + (l ^ 1)], size = both < 0 ? -both : both;
      largest[l] = largest[l] < size ? size : largest[l];
    }
  }
  float all = 0, check = 0;
  for (int l = 0; l < kLanesOfBlock; ++l) {
    all = all < largest[l] ? largest[l] : all;
    check += finite[l];
  }
  inverse = all > 0 && check == 0 ? most / all : 0;
  return all / most + check;
}

void round_row(const RoundedRows& to, int64_t row, const float* x) noexcept {
  const int64_t planes = to.form == RoundedForm::TwoBytes ? 2 : 1;
  std::byte* levels = to.levels + row * planes * to.level_row_bytes();
  float* scales = to.scales + row * planes * to.scale_row_floats();
  float* first_halves = to.first_halves() + row * planes * (to.cols / kBlockInputs);
  const float most = to.form == RoundedForm::Words      ? 32767.0f
                     : to.form == RoundedForm::TwoBytes ? 127.0f * 256
                                                        : 127.0f;
  const bool pairs = to.form == RoundedForm::Pairs;
  for (int64_t block = 0; block < to.cols / kBlockInputs; ++block) {
    const float* from = x + block * kBlockInputs;
    float inverse = 0;
    const float scale = block_scale(from, most, pairs, inverse);
    int32_t a[kBlockInputs] = {};
    if (inverse != 0) {
      for (int64_t k = 0; k < kBlockInputs; ++k) {
        a[k] = static_cast<int32_t>(__builtin_rintf(from[k] * inverse));
      }
    }
    const int64_t first = block * kBlockInputs;
    const auto put_bytes = [&](int64_t plane, const int32_t* values, float d) {
      auto* out = reinterpret_cast<int8_t*>(levels + plane * to.level_row_bytes()) + first;
      int32_t sum = 0, first_sum = 0;
      for (int64_t k = 0; k < kBlockInputs; ++k) {
        out[k] = static_cast<int8_t>(values[k]);
        sum += values[k];
      }
      for (int64_t k = 0; k < kBlockInputs / 2; ++k) first_sum += values[k];
      first_halves[plane * (to.cols / kBlockInputs) + block] =
          d * (sum_factor(to.form) * static_cast<float>(first_sum));
      float* pair = scales + plane * to.scale_row_floats() + 2 * block;
      pair[0] = d;
      pair[1] = d * (sum_factor(to.form) * static_cast<float>(sum));
    };
    if (to.form == RoundedForm::Bytes || pairs) {
      put_bytes(0, a, scale);
    } else if (to.form == RoundedForm::TwoBytes) {
      int32_t high[kBlockInputs], low[kBlockInputs];
      for (int64_t k = 0; k < kBlockInputs; ++k) {
        low[k] = static_cast<int8_t>(a[k] & 0xFF);
        high[k] = (a[k] - low[k]) / 256;
      }
      put_bytes(0, high, scale * 256);
      put_bytes(1, low, scale);
    } else {
      auto* out = reinterpret_cast<int16_t*>(levels) + first;
      int32_t sum = 0;
      for (int64_t k = 0; k < kBlockInputs; ++k) sum += a[k];
      for (int64_t k = 0; k < kBlockInputs; k += 4) {
        out[k] = static_cast<int16_t>(a[k]);
        out[k + 1] = static_cast<int16_t>(a[k + 2]);
        out[k + 2] = static_cast<int16_t>(a[k + 1]);
        out[k + 3] = static_cast<int16_t>(a[k + 3]);
      }
      scales[2 * block] = scale;
      scales[2 * block + 1] = scale * static_cast<float>(sum);
    }
  }
}
