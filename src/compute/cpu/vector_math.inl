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
