// What kernels are written with: the vector exponential, and loops over lanes with their tail.

// e^x to about 1e-7 relative: x = n ln 2 + r, a Taylor series of degree 7 in |r| <= ln 2 / 2.
inline Vec exp(Vec x) noexcept {
  x = Vec::min(Vec::max(x, Vec::set1(-87.3f)), Vec::set1(88.3f));
  const Vec n = Vec::round(x * Vec::set1(1.44269504f));
  // ln 2 in two parts, the first with trailing zeros, so that n times it is exact.
  Vec r = Vec::fma(n, Vec::set1(-0.693359375f), x);
  r = Vec::fma(n, Vec::set1(2.12194440e-4f), r);
  constexpr float kInverseFactorials[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                          1.0f / 6,    0.5f,       1.0f,       1.0f};
  Vec sum = Vec::set1(kInverseFactorials[0]);
  for (int i = 1; i < 8; ++i) sum = Vec::fma(sum, r, Vec::set1(kInverseFactorials[i]));
  return Vec::scale_by_power(sum, n);
}

// 2^x to about 1e-7 relative: x = n + r, the polynomial of degree 5 that is nearest for |r| <= 1/2.
// Zero where x is far below -126.
inline Vec exp2(Vec x) noexcept {
  x = Vec::exponent_range(x);
  const Vec n = Vec::round(x), r = x - n;
  constexpr float kTerms[] = {0.00967554134f, 0.0555071327f, 0.240221197f, 0.693146967f,
                              1.00000007f};
  Vec sum = Vec::set1(0.00132764726f);
  for (const float term : kTerms) sum = Vec::fma(sum, r, Vec::set1(term));
  return Vec::scale_by_power(sum, n);
}

// Calls body(offset, lanes) over `count` elements, the last time with fewer lanes.
template <class Body>
inline void for_lanes(int64_t count, const Body& body) noexcept {
  int64_t i = 0;
  for (; i + Vec::kLanes <= count; i += Vec::kLanes) body(i, int64_t{Vec::kLanes});
  if (i < count) body(i, count - i);
}

// tanh(x) to about 1e-7 absolute.
inline Vec tanh(Vec x) noexcept {
  const Vec one = Vec::set1(1);
  return one - Vec::set1(2) / (one + exp(x + x));
}

// erfc(z) for z >= 0, to about 1.2e-7 relative (Numerical Recipes, 6.2: a Chebyshev series in
// t = 1 / (1 + z / 2)).
inline Vec erfc_positive(Vec z) noexcept {
  const Vec t = Vec::set1(1) / Vec::fma(Vec::set1(0.5f), z, Vec::set1(1));
  constexpr float kTerms[] = {-0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                              -0.18628806f, 0.09678418f, 0.37409196f,  1.00002368f};
  Vec sum = Vec::set1(0.17087277f);
  for (const float term : kTerms) sum = Vec::fma(sum, t, Vec::set1(term));
  return t * exp(Vec::fma(sum, t, Vec::set1(-1.26551223f)) - z * z);
}

// Activations: their value, and their slope.
struct SiluAct {
  static Vec value(Vec x) noexcept { return x / (Vec::set1(1) + exp(Vec::zero() - x)); }
  // With σ = 1 / (1 + exp(-x)): σ · (1 + x · (1 - σ)).
  static Vec slope(Vec x) noexcept {
    const Vec one = Vec::set1(1), sigmoid = one / (one + exp(Vec::zero() - x));
    return sigmoid * Vec::fma(x, one - sigmoid, one);
  }
};
// x · Φ(x), Φ the normal distribution's (Hendrycks, Gimpel 2016).
struct GeluAct {
  static Vec share(Vec x) noexcept {
    const Vec size = Vec::max(x, Vec::zero() - x) * Vec::set1(0.707106781f);
    const Vec tail = erfc_positive(size) * Vec::set1(0.5f);
    return Vec::select_at_least(x, Vec::zero(), Vec::set1(1) - tail, tail);
  }
  static Vec value(Vec x) noexcept { return x * share(x); }
  static Vec slope(Vec x) noexcept {
    const Vec density = exp(x * x * Vec::set1(-0.5f)) * Vec::set1(0.398942280f);
    return Vec::fma(x, density, share(x));
  }
};
// x / (1 + exp(-2u)), u = sqrt(2 / π) · (x + 0.044715 x³): the same as x/2 · (1 + tanh(u)).
struct GeluTanhAct {
  static constexpr float kRoot = 0.797884561f, kCube = 0.044715f;
  static Vec minus_2u(Vec x) noexcept {
    const Vec inner = Vec::fma(x * x * x, Vec::set1(kCube), x);
    return inner * Vec::set1(-2 * kRoot);
  }
  static Vec value(Vec x) noexcept { return x / (Vec::set1(1) + exp(minus_2u(x))); }
  static Vec slope(Vec x) noexcept {
    const Vec one = Vec::set1(1), share = one / (one + exp(minus_2u(x)));
    const Vec inner = Vec::fma(x * x, Vec::set1(3 * kCube), one) * Vec::set1(2 * kRoot);
    return share * Vec::fma(x * (one - share), inner, one);
  }
};
template <class Body>
inline void with_activation(Activation activation, const Body& body) noexcept {
  switch (activation) {
    case Activation::Silu:
      return body(SiluAct{});
    case Activation::Gelu:
      return body(GeluAct{});
    case Activation::GeluTanh:
      return body(GeluTanhAct{});
  }
}

struct MeanAndScale {
  float mean, scale;
};
// A row's mean, and 1 / sqrt(variance + eps).
inline MeanAndScale mean_and_scale(const float* x, int64_t dim, float eps) noexcept {
  Vec sum = Vec::zero();
  for_lanes(dim, [&](int64_t i, int64_t n) { sum = sum + Vec::load_n(x + i, n); });
  const float count = static_cast<float>(dim), mean = sum.sum() / count;
  float rest = 0;
  Vec squares = Vec::zero();
  int64_t whole = dim / Vec::kLanes * Vec::kLanes;
  for (int64_t i = 0; i < whole; i += Vec::kLanes) {
    const Vec off = Vec::load(x + i) - Vec::set1(mean);
    squares = Vec::fma(off, off, squares);
  }
  for (int64_t i = whole; i < dim; ++i) rest += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0f / std::sqrt((squares.sum() + rest) / count + eps)};
}
