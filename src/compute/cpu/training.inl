// The backward passes of row kernels, the loss of a row, and the optimizer's loops.

// With r = 1 / sqrt(mean(x²) + eps), out = x · r · w and s = sum(d_out · w · x):
//   d_x = r · (d_out · w) - x · r³ · s / dim,   d_w = d_out · x · r.
// `w` is weight + offset.
void rms_norm_backward(float* d_x, float* d_weight, const float* d_out, const float* x,
                       const float* weight, int64_t dim, float eps, float offset) noexcept {
  const auto weight_at = [&](int64_t i, int64_t n) {
    return Vec::load_n(weight + i, n) + Vec::set1(offset);
  };
  Vec squares = Vec::zero(), products = Vec::zero();
  for_lanes(dim, [&](int64_t i, int64_t n) {
    const Vec v = Vec::load_n(x + i, n);
    squares = Vec::fma(v, v, squares);
    products = Vec::fma(Vec::load_n(d_out + i, n) * weight_at(i, n), v, products);
  });
  const float count = static_cast<float>(dim);
  const float r = 1.0f / std::sqrt(squares.sum() / count + eps);
  const Vec scale = Vec::set1(r), back = Vec::set1(-r * r * r * products.sum() / count);
  for_lanes(dim, [&](int64_t i, int64_t n) {
    const Vec v = Vec::load_n(x + i, n), scaled = Vec::load_n(d_out + i, n) * scale;
    const Vec straight = Vec::fma(scaled, weight_at(i, n), Vec::load_n(d_x + i, n));
    Vec::fma(v, back, straight).store_n(d_x + i, n);
    Vec::fma(scaled, v, Vec::load_n(d_weight + i, n)).store_n(d_weight + i, n);
  });
}

// With y = (x - mean) · r and g = d_out · w:
//   d_x = r · (g - mean(g) - y · mean(g · y)),   d_w = d_out · y,   d_b = d_out.
void layer_norm_backward(float* d_x, float* d_weight, float* d_bias, const float* d_out,
                         const float* x, const float* weight, int64_t dim, float eps) noexcept {
  const auto [mean, r] = mean_and_scale(x, dim, eps);
  const auto normed = [&, mean = mean, r = r](int64_t i, int64_t n) {
    return (Vec::load_n(x + i, n) - Vec::set1(mean)) * Vec::set1(r);
  };
  Vec sums = Vec::zero(), products = Vec::zero();
  for_lanes(dim, [&](int64_t i, int64_t n) {
    const Vec g = Vec::load_n(d_out + i, n) * Vec::load_n(weight + i, n);
    sums = sums + g;
    products = Vec::fma(g, normed(i, n), products);
  });
  const Vec mean_g = Vec::set1(sums.sum() / static_cast<float>(dim));
  const Vec mean_gy = Vec::set1(products.sum() / static_cast<float>(dim));
  for_lanes(dim, [&, r = r](int64_t i, int64_t n) {
    const Vec d = Vec::load_n(d_out + i, n), y = normed(i, n);
    const Vec g = d * Vec::load_n(weight + i, n) - mean_g - y * mean_gy;
    Vec::fma(g, Vec::set1(r), Vec::load_n(d_x + i, n)).store_n(d_x + i, n);
    Vec::fma(d, y, Vec::load_n(d_weight + i, n)).store_n(d_weight + i, n);
    (Vec::load_n(d_bias + i, n) + d).store_n(d_bias + i, n);
  });
}

void rope_backward(float* head, const float* cos, const float* sin, int64_t half) noexcept {
  for_lanes(half, [&](int64_t i, int64_t n) {
    const Vec a = Vec::load_n(head + i, n), b = Vec::load_n(head + half + i, n);
    const Vec c = Vec::load_n(cos + i, n), s = Vec::load_n(sin + i, n);
    (a * c + b * s).store_n(head + i, n);
    (b * c - a * s).store_n(head + half + i, n);
  });
}

template <class Act>
inline void activate_backward_as(float* d_x, float* d_factor, const float* d_out, const float* x,
                                 const float* factor, int64_t count) noexcept {
  for_lanes(count, [&](int64_t i, int64_t n) {
    const Vec v = Vec::load_n(x + i, n), d = Vec::load_n(d_out + i, n);
    Vec back = d * Act::slope(v);
    if (factor != nullptr) {
      back = back * Vec::load_n(factor + i, n);
      (d * Act::value(v)).store_n(d_factor + i, n);
    }
    back.store_n(d_x + i, n);
  });
}
void activate_backward(float* d_x, float* d_factor, const float* d_out, const float* x,
                       const float* factor, int64_t count, Activation activation) noexcept {
  with_activation(activation, [&](auto act) {
    activate_backward_as<decltype(act)>(d_x, d_factor, d_out, x, factor, count);
  });
}

void add(float* out, const float* x, int64_t count) noexcept {
  for_lanes(count, [&](int64_t i, int64_t n) {
    (Vec::load_n(out + i, n) + Vec::load_n(x + i, n)).store_n(out + i, n);
  });
}

double cross_entropy_row(float* logits, int64_t count, int64_t target, float scale) noexcept {
  Vec tops = Vec::set1(logits[0]);
  int64_t whole = 0;
  for (; whole + Vec::kLanes <= count; whole += Vec::kLanes) {
    tops = Vec::max(tops, Vec::load(logits + whole));
  }
  float top = tops.largest();
  for (int64_t i = whole; i < count; ++i) top = std::max(top, logits[i]);
  const double wanted = logits[target];

  Vec sums = Vec::zero();
  for (int64_t i = 0; i < whole; i += Vec::kLanes) {
    const Vec e = exp(Vec::load(logits + i) - Vec::set1(top));
    e.store(logits + i);
    sums = sums + e;
  }
  double sum = sums.sum();
  for (int64_t i = whole; i < count; ++i) {
    logits[i] = std::exp(logits[i] - top);
    sum += logits[i];
  }
  const auto factor = static_cast<float>(scale / sum);
  for_lanes(count, [&](int64_t i, int64_t n) {
    (Vec::load_n(logits + i, n) * Vec::set1(factor)).store_n(logits + i, n);
  });
  logits[target] -= scale;
  return std::log(sum) + top - wanted;
}

// Sixteen sums side by side, which the compiler turns into vectors of double.
double squared_norm(const float* x, int64_t count) noexcept {
  constexpr int kSums = 16;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (int j = 0; j < kSums; ++j) sums[j] += double{x[i + j]} * double{x[i + j]};
  }
  for (; i < count; ++i) sums[0] += double{x[i]} * double{x[i]};
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

void narrow(uint16_t* __restrict out, const float* __restrict x, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) out[i] = to_bf16(x[i]);
}
void widen(float* __restrict out, const uint16_t* __restrict x, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) out[i] = from_bf16(x[i]);
}

void adamw(float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v,
           int64_t count, const AdamWFactors& factors) noexcept {
  const AdamWFactors f = factors;
  for (int64_t i = 0; i < count; ++i) {
    const float gradient = g[i] * f.gradient_scale;
    m[i] = f.beta_1 * m[i] + f.rest_1 * gradient;
    v[i] = f.beta_2 * v[i] + f.rest_2 * gradient * gradient;
    p[i] = p[i] * f.keep - f.step_size * m[i] / (std::sqrt(v[i]) * f.root_scale + f.epsilon);
  }
}
