#include "model/kv_cache.h"

#include <fmt/format.h>

#include <cassert>
#include <cstring>
#include <utility>

#include "core/checked.h"
#include "core/error.h"
#include "model/rotary.h"

namespace quern {

KvPolicy kv_policy(DType dtype) noexcept {
  const bool free = dtype != DType::U8;
  return {.chunked = free, .shared = free, .recomputed = free, .guessed = free};
}

Sequence::Sequence(KvCache& cache, const Config& config, ContextRules rules, int64_t prompt_length,
                   int64_t offset)
    : cache_(&cache),
      alpha_(dynamic_alpha(config.rope_scaling, prompt_length)),
      logn_(rules.logn),
      offset_(offset) {
  if (rules.dynamic_ntk) alpha_ *= ntk_alpha(prompt_length, config.trained_context);
  long_factors_ = takes_long_factors(config, prompt_length);
  inverse_frequencies_ = quern::inverse_frequencies(config, alpha_, prompt_length);
}

bool Sequence::outgrown_by(const Config& config, int64_t length) const noexcept {
  return !long_factors_ && takes_long_factors(config, length);
}

void Sequence::restart(const Config& config, int64_t length) {
  release();
  long_factors_ = takes_long_factors(config, length);
  inverse_frequencies_ = quern::inverse_frequencies(config, alpha_, length);
}

Sequence::~Sequence() {
  if (cache_ != nullptr) release();
}

Sequence::Sequence(Sequence&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)),
      pages_(std::move(other.pages_)),
      inverse_frequencies_(std::move(other.inverse_frequencies_)),
      alpha_(other.alpha_),
      logn_(other.logn_),
      long_factors_(other.long_factors_),
      offset_(other.offset_),
      length_(other.length_) {}

Sequence& Sequence::operator=(Sequence&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(pages_, other.pages_);
  std::swap(inverse_frequencies_, other.inverse_frequencies_);
  std::swap(alpha_, other.alpha_);
  std::swap(logn_, other.logn_);
  std::swap(long_factors_, other.long_factors_);
  std::swap(offset_, other.offset_);
  std::swap(length_, other.length_);
  return *this;
}

void Sequence::reserve(int64_t tokens) {
  const int64_t per_page = cache_->layout().page_tokens;
  const auto wanted = static_cast<size_t>((tokens + per_page - 1) / per_page);
  while (pages_.size() < wanted) pages_.push_back(cache_->take());
}

void Sequence::share_page(std::byte* page) {
  assert(length_ % cache_->layout().page_tokens == 0);
  const int64_t place = length_ / cache_->layout().page_tokens;
  if (place < page_count()) {
    replace_page(place, page);
  } else {
    pages_.push_back(page);
    cache_->retain(page);
  }
  length_ += cache_->layout().page_tokens;
}

void Sequence::replace_page(int64_t place, std::byte* page) noexcept {
  cache_->retain(page);
  cache_->release(std::exchange(pages_[static_cast<size_t>(place)], page));
}

void Sequence::copy_page(const std::byte* page, int64_t tokens) {
  assert(length_ % cache_->layout().page_tokens == 0);
  const auto place = static_cast<size_t>(length_ / cache_->layout().page_tokens);
  reserve(length_ + tokens);
  std::memcpy(pages_[place], page, static_cast<size_t>(cache_->page_bytes()));
  length_ += tokens;
}

void Sequence::release() noexcept {
  for (auto page = pages_.rbegin(); page != pages_.rend(); ++page) cache_->release(*page);
  pages_.clear();
  length_ = 0;
}

KvCache::KvCache(Backend& backend, const Config& config, DType dtype, int64_t capacity,
                 int64_t sequences)
    : layout_{.dtype = dtype, .kv_heads = config.kv_heads, .head_dim = config.head_dim} {
  const int64_t pages = capacity / layout_.page_tokens + sequences;
  page_bytes_ = layout_.layer_bytes() * config.layers;
  const int64_t bytes = checked_mul(pages, page_bytes_, "the KV cache");
  memory_ = backend.allocate(DType::U8, {bytes});
  users_.resize(static_cast<size_t>(pages));
  free_.reserve(static_cast<size_t>(pages));
  for (int64_t p = pages - 1; p >= 0; --p) free_.push_back(memory_.data() + p * page_bytes_);
}

std::byte* KvCache::take() {
  if (free_.empty()) {
    throw Error(Kind::NoResources, "the KV cache is full",
                "use a shorter context, fewer sequences or a smaller --kv-cache type");
  }
  std::byte* page = free_.back();
  free_.pop_back();
  users_[index(page)] = 1;
  return page;
}

void KvCache::release(std::byte* page) noexcept {
  if (--users_[index(page)] == 0) free_.push_back(page);  // reserved for all of them
}

uint64_t KvCache::bytes_per_token(const Config& config, DType dtype) noexcept {
  const KvLayout layout{.dtype = dtype, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
  return static_cast<uint64_t>(layout.layer_bytes() * config.layers / layout.page_tokens);
}

}  // namespace quern
